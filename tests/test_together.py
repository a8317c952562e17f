"""The joint problem, against networks that are made one by one, the long way; its rivals, on made-up landscapes."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit import compress, distill, measure, models, prune, together, training
from kit.data import Dataset, Split
from kit.search import Config, Random, Study
from kit.search.networks import drawn_seed
from kit.together import CORNER, OBJECTIVES, PLAIN, Problem, by_hand, one_at_a_time, rivals
from tests.nets import already_set

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCHS = 3
WHOLE: Config = {"width": 9, "lr": 0.02, "ratio_in": 0.7, "ratio_out": 0.4, "tune": 2, "bits_in": 3, "bits_out": 4}
THIN: Config = {**WHOLE, "width": 20, "rank": 5, "tune": 3, "temperature": 2.0, "alpha": 0.9}
MIXED: list[Config] = [WHOLE, THIN, {"width": 48}, {**WHOLE, "tune": 0}, {**THIN, "rank": 32, "tune": 4}]


@pytest.fixture(scope="module")
def logits(few_digits: Dataset) -> Tensor:
    """Of a teacher that has seen a little."""
    net = models.MLP((64, 32, 10), seed=1)
    training.fit(net, few_digits, epochs=5, lr=1e-2)
    return training.predict(net, few_digits.train.inputs)


@pytest.fixture
def problem(few_digits: Dataset, logits: Tensor) -> Problem:
    return Problem(few_digits, logits, epochs=EPOCHS)


def by_the_long_way(transfer: Split, logits: Tensor, config: Config, seed: int) -> nn.Module:
    """One network by the kit's functions for one network."""
    config = together.space().check({**PLAIN, **config})
    net: nn.Module = models.MLP((64, config["width"], 10), seed=drawn_seed(0, config) + seed)
    taught: dict[str, Any] = {name: config[name] for name in ("temperature", "alpha", "lr")} | {"seed": seed}
    distill.fit(net, logits, transfer, epochs=EPOCHS, **taught)
    if config["rank"] * (64 + config["width"]) < 64 * config["width"]:
        net = compress.low_rank(net, rank={"layers.0": config["rank"]}).model
    names = [name for name in prune.prunable(net) if name != "layers.1.weight"]
    ratio: dict[str, float] = {
        **dict.fromkeys(names, float(config["ratio_in"])),
        "layers.1.weight": config["ratio_out"],
    }
    net = prune.weights(net, ratio=ratio)
    held = prune.HoldMasks(prune.masks(net))
    distill.fit(net, logits, transfer, epochs=config["tune"], callbacks=[held], **taught)
    clusters = {**dict.fromkeys(names, int(2 ** config["bits_in"])), "layers.1.weight": 2 ** config["bits_out"]}
    net = compress.share(net, clusters, biases=True)
    for weight in prune.prunable(net).values():
        weight.register_hook(partial(summed, weight.detach().clone()))
    distill.fit(net, logits, transfer, epochs=config["tune"], **taught)
    return net


def summed(before: Tensor, gradient: Tensor) -> Tensor:
    """For each weight the sum of the gradients of all that had its value; 0 for zeros."""
    return sum((gradient[before == value].sum() * (before == value) for value in before.unique() if value), before * 0)


# What is made


@pytest.mark.parametrize(("config", "seed"), [(WHOLE, 0), (WHOLE, 3), (THIN, 0), ({**THIN, "tune": 0}, 1)])
def test_a_network_is_that_of_the_long_way(
    few_digits: Dataset, logits: Tensor, problem: Problem, config: Config, seed: int
) -> None:
    wanted = by_the_long_way(few_digits.train, logits, config, seed)
    made, file = problem.make(config, seed)
    assert [name for name, _ in made.named_parameters()] == [name for name, _ in wanted.named_parameters()]
    for mine, theirs in zip(made.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=2e-3)  # the steps of float16
    halves = {name: each.half().float() for name, each in wanted.state_dict().items()}
    assert len(file) == pytest.approx(len(compress.encode(halves).data), abs=16)


def test_what_is_told_is_what_the_file_has(few_digits: Dataset, problem: Problem, tmp_path: Path) -> None:
    for config in MIXED:
        net, file = problem.make(config)
        assert problem(config) == {"accuracy": measure.accuracy(net, few_digits.validation).value, "bytes": len(file)}
        (tmp_path / "net.kit").write_bytes(file)
        state = compress.read(tmp_path / "net.kit")
        assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in state.items())
        assert len(state) == len(net.state_dict())
        assert type(net) is models.MLP
        assert not net.training


def test_a_trial_does_not_depend_on_its_batch(few_digits: Dataset, logits: Tensor, problem: Problem) -> None:
    together_made = problem.batch(MIXED)
    for config, found in zip(MIXED, together_made, strict=True):
        alone = Problem(few_digits, logits, epochs=EPOCHS)(config)
        assert found["accuracy"] == pytest.approx(alone["accuracy"], abs=2.1 / len(few_digits.validation))
        assert found["bytes"] == pytest.approx(alone["bytes"], abs=8)
    assert problem.batch(MIXED[::-1]) == together_made[::-1]  # remembered, so equal to the last digit
    assert problem.batch([WHOLE, WHOLE]) == together_made[:1] * 2
    assert problem.batch([]) == []


def test_each_knob_does_what_it_says(problem: Problem) -> None:
    net, _ = problem.make({**WHOLE, "width": 10, "ratio_in": 0.5, "ratio_out": 0.25, "bits_in": 2, "bits_out": 1})
    first, last = (net.get_parameter(f"layers.{at}.weight") for at in (0, 1))
    assert [int((weight != 0).sum()) for weight in (first, last)] == [320, 75]
    assert [len(compress.codebook(weight)) for weight in (first, last)] == [4, 2]
    thin, _ = problem.make(THIN)
    assert [tuple(parameter.shape) for parameter in thin.parameters()] == [(5, 64), (20, 5), (20,), (10, 20), (10,)]
    for parameter, kept in zip(thin.parameters(), (96, 30, 20, 120, 10), strict=True):
        assert int((parameter != 0).sum()) == kept
    untouched = problem.make({"width": 6, "bits_in": 6})[0]
    assert all(bool((parameter != 0).all()) for parameter in untouched.parameters())


@pytest.mark.parametrize("name", ["lr", "temperature", "alpha", "tune"])
def test_how_it_learns_changes_the_network(problem: Problem, name: str) -> None:
    other = {"lr": 0.03, "temperature": 7.0, "alpha": 0.1, "tune": 6}[name]
    nets = problem.made([({**WHOLE, name: other}, 0), (WHOLE, 0)])
    assert nets[0].data != nets[1].data


def test_seeds_and_problems_differ_and_repeat(few_digits: Dataset, logits: Tensor, problem: Problem) -> None:
    files = [problem.make(WHOLE, seed)[1] for seed in range(3)]
    files.append(Problem(few_digits, logits, epochs=EPOCHS, seed=1).make(WHOLE)[1])
    files.append(Problem(few_digits, logits, epochs=EPOCHS + 1).make(WHOLE)[1])
    files.append(Problem(few_digits, logits, epochs=EPOCHS, batch_size=32).make(WHOLE)[1])
    assert len(set(files)) == 6
    assert Problem(few_digits, logits, epochs=EPOCHS).make(WHOLE)[1] == files[0]


def test_a_transfer_set_is_learned_from(few_digits: Dataset) -> None:
    net = models.MLP((64, 8, 10))
    transfer = distill.partly_labelled(few_digits.train.first(100), 10)
    made = Problem(few_digits, net, transfer=transfer, epochs=EPOCHS)
    wanted = by_the_long_way(transfer, training.predict(net, transfer.inputs), WHOLE, seed=0)
    torch.testing.assert_close(next(made.make(WHOLE)[0].parameters()), next(wanted.parameters()), atol=2e-3, rtol=2e-3)


def test_samples_may_have_fewer_numbers_than_the_highest_rank(few_digits: Dataset) -> None:
    def narrow(split: Split) -> Split:
        return Split(split.inputs.flatten(1)[:, 20:32], split.labels)

    splits: dict[str, Any] = {name: narrow(getattr(few_digits, name)) for name in ("train", "validation", "test")}
    problem = Problem(dataclasses.replace(few_digits, noun="rows", **splits), torch.zeros(200, 10), epochs=1)
    whole, thin = (problem.make({**WHOLE, "width": 24, "rank": rank})[0] for rank in (32, 6))
    assert [tuple(weight.shape) for weight in prune.prunable(whole).values()] == [(24, 12), (10, 24)]
    assert [tuple(weight.shape) for weight in prune.prunable(thin).values()] == [(6, 12), (24, 6), (10, 24)]


def test_a_retest_is_of_other_seeds(problem: Problem) -> None:
    accuracy, size = problem.retest(WHOLE, seeds=[2, 4, 6])
    made = problem.made([(WHOLE, seed) for seed in (2, 4, 6)])
    assert accuracy.value == pytest.approx(sum(each.accuracy for each in made) / 3)
    assert size.value == pytest.approx(sum(len(each.data) for each in made) / 3)
    assert accuracy.n == size.n == 3
    assert accuracy.low < accuracy.value < accuracy.high
    assert problem.retest(WHOLE)[0].n == 8


def test_a_network_that_diverges_fails_its_trial(few_digits: Dataset, logits: Tensor) -> None:
    huge = Split(few_digits.train.inputs * 1e30, few_digits.train.labels)
    lost = Problem(few_digits, logits, transfer=huge, epochs=1)
    told = lost.batch([WHOLE, THIN])
    assert all(math.isnan(value) for each in told for value in each.values())
    with pytest.raises(ValueError, match=r"config: the network of .* with seed 0 diverged; take a smaller lr"):
        lost.make(WHOLE)
    with pytest.raises(ValueError, match="diverged"):
        lost.retest(WHOLE, [1, 2])
    study = Study(lost.space, objectives=OBJECTIVES).run(lost, Random(), budget=1)
    assert [trial.status for trial in study.trials] == ["failed"]


def test_it_is_an_objective(problem: Problem) -> None:
    study = Study(problem.space, objectives=OBJECTIVES).run(problem.batch, Random(), budget=6, batch=4)
    assert [trial.status for trial in study.trials] == ["done"] * 6
    assert [problem(trial.config) for trial in study.trials] == [trial.values for trial in study.trials]
    assert study.goals == problem.goals
    assert study.hypervolume(**CORNER) >= 0
    copied = pickle.loads(pickle.dumps(problem))
    assert copied(WHOLE) == problem(WHOLE)


def test_nothing_else_moves(few_digits: Dataset) -> None:
    net = models.MLP((64, 8, 10)).train()
    before, state = {name: each.clone() for name, each in net.state_dict().items()}, torch.random.get_rng_state()
    Problem(few_digits, net, epochs=1).batch([WHOLE, THIN])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(each, before[name]) for name, each in net.state_dict().items())
    assert net.training


def test_a_batch_is_cancelled(problem: Problem) -> None:
    with pytest.raises(training.Cancelled):
        problem.batch([WHOLE], cancel=already_set())
    assert problem.batch([WHOLE], cancel=Event())


def test_words_say_what_is_done(problem: Problem) -> None:
    said = problem.words({**WHOLE, "temperature": 3.0, "alpha": 0.25})
    parts = ("9 hidden", "25 % of", "temperature 3", "rate 0.02", "70 % and 40 %", "2 epochs", "8 and 16 values")
    assert all(part in said for part in parts)
    assert "rank" not in said
    assert "rank 5 in the first layer" in problem.words(THIN)
    assert "no epochs of" in problem.words({})
    assert "1 epoch of" in problem.words({"tune": 1})


# Refusals


@pytest.mark.parametrize(
    ("config", "error", "sentence"),
    [
        ({"widht": 8}, ValueError, "config has an unknown key 'widht'; the space has width, temperature"),
        ({"width": 64}, ValueError, "config: width must be a whole number from 4 to 48; got 64"),
        ({"bits_in": 2.5}, ValueError, "config: bits_in must be a whole number from 1 to 6; got 2.5"),
        ([WHOLE], TypeError, "config must be a dict of names and values; got "),
    ],
)
def test_it_refuses_a_config(problem: Problem, config: Any, error: type[Exception], sentence: str) -> None:
    for call in (problem, problem.make, problem.retest, problem.words):
        with pytest.raises(error, match=sentence):
            call(config)


@pytest.mark.parametrize(
    ("changed", "error", "sentence"),
    [
        ({"epochs": 0}, ValueError, "epochs must be 1 or more; got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be 1 or more; got 0"),
        ({"seed": -1}, ValueError, "seed must be 0 or more; got -1"),
        ({"dataset": None}, TypeError, "dataset must be a"),
        ({"transfer": 3}, TypeError, "transfer must be one of a data set's splits"),
        ({"teacher": "big"}, TypeError, "teacher must be a module, or its logits as a tensor; got 'big'"),
        ({"teacher": torch.zeros(200, 9)}, ValueError, "teacher answers 9 classes, and the data set has 10"),
        ({"teacher": torch.zeros(199, 10)}, ValueError, r"teacher's logits must have shape \[200, n_classes\]"),
        ({"transfer": Split(torch.zeros(200, 9), torch.zeros(200).long())}, ValueError, "transfer has samples of"),
        ({"transfer": Split(torch.zeros(200, 1, 8, 8), torch.arange(200))}, ValueError, "transfer's labels must"),
    ],
)
def test_a_problem_refuses(
    few_digits: Dataset, logits: Tensor, changed: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        Problem(**{"dataset": few_digits, "teacher": logits, **changed})


def test_it_refuses_seeds_and_batches(problem: Problem) -> None:
    for seeds in ([1], [], [2, 2]):
        with pytest.raises(ValueError, match="seeds needs at least two, none twice, to show a spread; got "):
            problem.retest(WHOLE, seeds)
    with pytest.raises(TypeError, match="seeds must be a list of whole numbers; got 3"):
        problem.retest(WHOLE, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed must be 0 or more; got -1"):
        problem.make(WHOLE, -1)
    with pytest.raises(TypeError, match="configs must be a list of configurations: call `run` with batch=1 or more"):
        problem.batch(WHOLE)  # type: ignore[arg-type]


# Rivals


class MadeUp:
    """Accuracy and bytes by a formula, in which no knob needs another."""

    space = together.space()

    def batch(self, configs: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
        return [{"accuracy": self.accuracy(self.places(config)), "bytes": self.size(config)} for config in configs]

    def places(self, config: Mapping[str, Any]) -> dict[str, float]:
        return dict(zip(self.space.names, self.space.encode(config), strict=True))

    def accuracy(self, at: Mapping[str, float]) -> float:
        lost = 0.02 * (at["lr"] - 0.4) ** 2 + 0.02 * (at["alpha"] - 0.7) ** 2 - 0.01 * at["tune"]
        return 0.95 - lost - 0.1 * (1 - at["width"]) ** 2 - 0.05 * (at["ratio_in"] ** 2 + at["ratio_out"] ** 2)

    def size(self, config: Mapping[str, Any]) -> float:
        return float(config["width"] * (config["bits_in"] + config["bits_out"]) * (2 - config["ratio_in"]))


def changed(config: Config, other: Config) -> list[str]:
    return [name for name in config if config[name] != other[name]]


@pytest.mark.parametrize("budget", [1, 9, 60])
def test_one_at_a_time_changes_one_knob_at_a_time(budget: int) -> None:
    made_up: Any = MadeUp()
    study = one_at_a_time(made_up, budget)
    configs = [trial.config for trial in study.trials]
    assert len(configs) == budget
    assert configs[0] == {**PLAIN, "width": 48, "tune": 4}
    for at, config in enumerate(configs[1:], start=1):
        assert any(len(changed(config, before)) == 1 for before in configs[:at])
    turns = 3 * rivals.VALUES
    first = {name for config in configs[1 : turns + 1] for name in changed(config, configs[0])}
    assert first <= {"lr", "temperature", "alpha"}


def test_one_at_a_time_goes_on_from_the_best_that_keeps_enough_accuracy() -> None:
    made_up: Any = MadeUp()
    study = one_at_a_time(made_up, 12 + 1 + rivals.VALUES * len(rivals.THEN_SMALLER))  # one pass
    first, *rest = study.trials
    tuned = rest[: 3 * rivals.VALUES]
    best = max([first, *tuned], key=lambda trial: trial.values["accuracy"])
    of_width = [trial for trial in rest[3 * rivals.VALUES :] if changed(trial.config, best.config) == ["width"]]
    assert len(of_width) == rivals.VALUES
    enough = best.values["accuracy"] - rivals.DROPS[0] / len(rivals.THEN_SMALLER)
    good = [trial for trial in [best, *of_width] if trial.values["accuracy"] >= enough]
    chosen = min(good, key=lambda trial: trial.values["bytes"])
    after = rest[3 * rivals.VALUES + len(of_width)]
    assert changed(after.config, chosen.config) == ["rank"]
    last = study.trials[-1].values["accuracy"]
    assert last >= best.values["accuracy"] - rivals.DROPS[0] - 0.05


def test_one_at_a_time_repeats_by_its_seed() -> None:
    made_up: Any = MadeUp()
    runs = [[trial.config for trial in one_at_a_time(made_up, 40, seed).trials] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_by_hand_sweeps_width_ratio_and_bits() -> None:
    made_up: Any = MadeUp()
    configs = [trial.config for trial in by_hand(made_up, 36).trials]
    assert len(configs) == 36
    moved = {"width", "ratio_in", "ratio_out", "bits_in", "bits_out"}
    assert set().union(*(changed(config, rivals.BY_HAND) for config in configs)) == moved
    assert all(config["ratio_out"] == pytest.approx(config["ratio_in"] / 2) for config in configs)
    assert all(config["bits_in"] == config["bits_out"] for config in configs)
    assert len({(config["width"], config["ratio_in"], config["bits_in"]) for config in configs}) == 36
    assert {config["width"] for config in configs if config["ratio_in"] == 0} == {6, 12, 24, 48}
    assert configs[-1]["ratio_in"] == together.space().parameters["ratio_in"].high  # type: ignore[union-attr]


@pytest.mark.parametrize("rival", [one_at_a_time, by_hand])
def test_a_rival_refuses(rival: Any) -> None:
    with pytest.raises(ValueError, match="budget must be 1 or more; got 0"):
        rival(MadeUp(), 0)
    with pytest.raises(ValueError, match="seed must be 0 or more; got -1"):
        one_at_a_time(MadeUp(), 5, -1)  # type: ignore[arg-type]


@pytest.mark.parametrize("rival", [one_at_a_time, by_hand])
def test_a_rival_is_cancelled(rival: Any) -> None:
    cancel, asked = Event(), list[int]()

    class Stopped(MadeUp):
        def batch(self, configs: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
            asked.append(len(configs))
            if len(asked) == 2:
                cancel.set()
            return super().batch(configs)

    with pytest.raises(training.Cancelled, match="cancelled in the middle of a search"):
        rival(Stopped(), 60, cancel=cancel)
    assert len(asked) == 2
    assert len(rival(MadeUp(), 12, cancel=Event()).trials) == 12
