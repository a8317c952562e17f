"""Explorers on what is big: what they leave out to be done in time, and how they say it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from torch import nn

from kit import cohort, measure, models, training
from kit.data import Dataset
from kit.explorers import (
    BayesExplorer,
    DistillationExplorer,
    PruningExplorer,
    SearchExplorer,
    SensitivityExplorer,
    sizing,
)
from kit.explorers import distill as distilling
from kit.explorers import prune as pruning
from kit.explorers import search as searching
from kit.explorers import sensitivity as scanning
from kit.models import ConvNet
from kit.prune import PruningMethod
from kit.prune.sweep import Point
from kit.search import landscape as landscapes
from tests.hands import PATIENCE, settle, words

pytestmark = pytest.mark.usefixtures("own_board")

Open = Callable[[Any], Any]


@pytest.fixture
def big(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is small any more, and the machine trains a billion operations a second."""
    monkeypatch.setattr(sizing, "SURE", 0.0)
    monkeypatch.setattr(cohort, "speed", lambda template, train: 1e9)


def landscape_work(dataset: Dataset, points: int, epochs: int, seeds: int, samples: int) -> float:
    """Operations of a whole landscape, by hand."""
    weights = 16 * (dataset.train.inputs[0].numel() + dataset.n_classes)
    scored = max(200, samples * len(dataset.validation) / len(dataset.train))
    return points**2 * seeds * epochs * weights * (6 * samples + 2 * scored)


def sized(dataset: Dataset, asked: Mapping[str, int | None], seconds: float | None) -> tuple[Any, dict[str, Any], str]:
    return sizing.landscape(dataset, searching.PLANE, asked, searching.RUNGS, seconds, ("points", "epochs"))


def test_the_fullest_plan_that_fits_is_taken() -> None:
    takes = {"all": 9.0, "half": 4.0, "little": 1.0}.__getitem__
    plans = ["all", "half", "little"]
    for seconds, plan in ((None, "all"), (9, "all"), (8.9, "half"), (4, "half"), (3, "little"), (0.1, "little")):
        assert sizing.fullest(plans, takes, seconds) == plan
    assert sizing.sure(3e10, 3) and sizing.sure(1e99, None) and not sizing.sure(3.1e10, 3)
    assert sizing.sentence(30, []) == ""
    assert (
        sizing.sentence(30, ["2 seeds", "9 epochs"])
        == "Sized for 30 s here: 2 seeds, 9 epochs; seconds=None takes all."
    )


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "5", True])
def test_seconds_that_are_none_are_refused(few_digits: Dataset, trained: ConvNet, seconds: Any) -> None:
    for make in (
        lambda: SearchExplorer(few_digits, seconds=seconds),
        lambda: DistillationExplorer(trained, few_digits, seconds=seconds),
        lambda: PruningExplorer(trained, few_digits, seconds=seconds),
        lambda: BayesExplorer(few_digits, seconds=seconds),
        lambda: SensitivityExplorer(trained, few_digits, seconds=seconds),
    ):
        with pytest.raises((ValueError, TypeError), match=r"seconds \(None is .*\) must be .*; got"):
            make()


def test_on_the_digits_nothing_is_timed_or_left_out(
    digits: Dataset, trained: ConvNet, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(*_: Any) -> Any:
        raise AssertionError("a speed was asked for")

    monkeypatch.setattr(cohort, "speed", timed)
    monkeypatch.setattr(sizing, "fullest", timed)
    with measure._alone(None):  # no worker begins
        search = opened(SearchExplorer(digits))
        assert search.code() == "SearchExplorer(dataset, method='random', trainings=36, points=20, epochs=20)"
        assert search._landscape.curves.shape == (3, 20, 20, 20) and search._landscape.samples == 0
        student = opened(DistillationExplorer(models.ConvNet(), digits))
        assert (student.seeds.value, student.epochs.value) == (8, 20)
        assert student._part is digits
        assert student.code().endswith("temperature=4, transfer='few labels', width=32)")
        pruned = opened(PruningExplorer(models.ConvNet(), digits))
        assert pruned._plan(PruningMethod(epochs=10)) == (40, None)
        assert pruned.code() == "PruningExplorer(model, dataset, ratio=0.5, what='weights')"
        scan = opened(SensitivityExplorer(models.ConvNet(), digits))
        assert scan._scanners["magnitude", False].total == 4 * 9 and scan.code().endswith("ratio=0.9)")
        line = opened(BayesExplorer(digits))
        assert line._call == "dataset, points=96, seeds=4, epochs=20, start=3"  # `code` would wait for its trials
        assert not any(each._sized for each in (search, student, scan, line))


# The landscape


@pytest.mark.parametrize("seconds", [1, 3, 20])
@pytest.mark.usefixtures("big")
def test_a_landscape_is_as_full_as_there_is_time(few_digits: Dataset, seconds: float) -> None:
    asked = dict.fromkeys(("points", "epochs", "seeds", "samples"))
    plan, sizes, said = sized(few_digits, asked, seconds)
    rungs = [{name: int(min(value, 200)) for name, value in rung.items()} for rung in searching.RUNGS]  # all are there
    fits = [rung for rung in rungs if landscape_work(few_digits, **rung) <= 1e9 * seconds]
    wanted = fits[0] if fits else rungs[-1]
    assert sizes == wanted
    assert plan.curves.shape == (wanted["seeds"], *[wanted["points"]] * 2, wanted["epochs"])
    points, seeds, epochs = wanted["points"], wanted["seeds"], wanted["epochs"]
    cells = f"{points} x {points} cells, {seeds} networks each, {epochs} epochs"
    assert said == f"Sized for {seconds:g} s here: {cells}; seconds=None takes all."


@pytest.mark.usefixtures("big")
def test_what_is_given_is_kept_and_the_rest_is_sized(few_digits: Dataset) -> None:
    asked = {"points": 7, "epochs": None, "seeds": 2, "samples": 90}
    plan, sizes, said = sized(few_digits, asked, 1e-3)
    assert sizes == {"points": 7, "epochs": 5, "seeds": 2, "samples": 90}
    assert (plan.samples, plan.epochs) == (90, 5)
    assert said.startswith("Sized for 0.001 s here: 7 x 7 cells, 2 networks each, 5 epochs, 90 of 200 training images;")
    given = {"points": 7, "epochs": 6, "seeds": 2, "samples": 500}
    plan, sizes, said = sized(few_digits, given, 1e-3)
    assert (plan.samples, sizes["samples"], said) == (0, 500, "")  # there is nothing to size
    full = sized(few_digits, dict.fromkeys(asked), None)
    assert full[1] == {"points": 20, "epochs": 20} and full[2] == ""


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"samples": 0}, "samples must be 1 or more; got 0"),
        ({"seeds": 1}, "seeds must be 2 or more; got 1"),
        ({"samples": 2.5}, "samples must be a whole number; got 2.5"),
    ],
)
def test_sizes_that_cannot_be_are_refused(few_digits: Dataset, sizes: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        SearchExplorer(few_digits, **sizes)


def test_a_landscape_of_a_part_is_trained_and_scored_on_it_alone(opened: Open, digits: Dataset) -> None:
    explorer = opened(SearchExplorer(digits, points=2, epochs=2, seeds=2, samples=100, trainings=9, method="grid"))
    landscape, part = explorer.landscape, digits.part(100)
    assert (len(part.train), len(part.validation)) == (100, 200)
    assert np.allclose(landscape.curves, landscapes.train(part, searching.PLANE, points=2, epochs=2, seeds=2).curves)
    assert landscape.trained_on == digits.key  # it may be given for the same data set again
    trial = explorer.incumbent
    objective = landscape.objective(0)
    reached = landscape.curves[(objective.seed(trial.config), *objective.cell(trial.config), -1)]
    assert measure.accuracy(explorer.model, part.validation).value == pytest.approx(reached, abs=0.006)
    assert explorer.profile.accuracy.n == len(digits.validation)  # what is pinned is measured on all
    assert "Retested on 1 other network of its cell" in words(explorer)
    assert "samples=100" in explorer.code()


@pytest.mark.usefixtures("big")
def test_a_sized_search_says_so_from_the_first_moment(
    opened: Open, few_digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "RUNGS", searching.RUNGS[:1] + searching.RUNGS[-1:])
    seen: list[tuple[str, float]] = []
    with measure._alone(None):
        explorer = opened(SearchExplorer(few_digits, trainings=9, samples=60, seconds=0.1))
        explorer.progress.observe(lambda change: seen.append((words(explorer), change["new"])), "value")
    explorer.repeats.value = 4
    explorer.wait(PATIENCE)
    parts = "5 x 5 cells, 2 networks each, 5 epochs, 60 of 200 training images"
    sized = f"Sized for 0.1 s here: {parts}; seconds=None takes all."
    assert seen[0][0] == f"Training 50 networks: 2 at every cell, with different seeds. {sized}"
    assert 0 < seen[0][1] < 1 and max(share for _, share in seen) == 1
    assert words(explorer).endswith(sized)
    assert explorer.code().startswith(
        "SearchExplorer(dataset, method='random', trainings=9, points=5, epochs=5, seeds=2, samples=60)"
    )


@pytest.mark.usefixtures("big")
def test_a_line_is_sized_too(opened: Open, few_digits: Dataset) -> None:
    explorer = opened(BayesExplorer(few_digits, seconds=0.1, seeds=3, samples=60))
    explorer.wait(PATIENCE)
    assert explorer.landscape.curves.shape == (3, 24, 8)
    sized = (
        "Sized for 0.1 s here: 24 cells, 3 networks each, 8 epochs, 60 of 200 training images; seconds=None takes all."
    )
    assert words(explorer).endswith(sized)
    assert explorer.code().startswith("BayesExplorer(dataset, points=24, seeds=3, epochs=8, samples=60, start=3)")


def test_large_networks_are_trained_in_small_parts(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = landscapes.blank(searching.PLANE, points=4, seeds=2, epochs=1, samples=60)
    for work, parts in ((blank.work(digits) * 10, 4), (blank.work(digits) * 1e-3, 8), (1e99, 1)):  # of 32 networks
        monkeypatch.setattr(landscapes, "CHUNK_WORK", work)
        assert len(list(landscapes.grow(digits, blank))) == parts  # ten at once, as few as four, all


# Students


@pytest.mark.usefixtures("big")
def test_students_are_sized_to_a_move(opened: Open, digits: Dataset, trained: ConvNet) -> None:
    explorer = opened(DistillationExplorer(trained, digits, width=8, seconds=1))
    each = 6 * (64 * 8 + 8 + 8 * 10 + 10)
    teacher = measure.flops(trained, digits.validation.inputs)
    for seeds, epochs, most in distilling.LADDER:
        samples = int(min(most, len(digits.train)))
        scored = max(200, -(-samples * len(digits.validation) // len(digits.train)))
        if 3 * seeds * epochs * samples * each + (samples + scored) * teacher <= 1e9:
            break
    assert (explorer.seeds.value, explorer.epochs.value, len(explorer._part.train)) == (seeds, epochs, samples)
    assert (seeds, epochs, samples) != (8, 20, len(digits.train))
    of_all = f"{samples:,} of {len(digits.train):,} training images"
    sized = f"Sized for 1 s a move here: {seeds} students, {epochs} epochs, {of_all}"
    explorer.wait(PATIENCE)
    assert words(explorer).endswith(f"{sized}; seconds=None takes all.")
    assert f"on the same {scored:,} images." in words(explorer)
    assert explorer.group.named.shape == (seeds, scored)
    assert len(explorer.settings.recipe.transfer) == samples
    assert f"width=8, seeds={seeds}, epochs={epochs}, samples={samples})" in explorer.code()
    again = opened(
        eval(explorer.code(), {"DistillationExplorer": DistillationExplorer, "teacher": trained, "dataset": digits})
    )
    assert again.group.accuracies == explorer.group.accuracies
    explorer.reset()
    assert explorer.epochs.value == epochs


def test_students_of_a_given_size(opened: Open, few_digits: Dataset, trained: ConvNet) -> None:
    with measure._alone(None):
        explorer = opened(DistillationExplorer(trained, few_digits, seeds=4, epochs=5, samples=9999, seconds=None))
        assert (explorer.seeds.value, explorer.epochs.value) == (4, 5)
        assert explorer._part is few_digits and explorer._sized == ""
    with pytest.raises(ValueError, match="seeds must be one of the slider's 5 stops from 4 to 64; got 5"):
        DistillationExplorer(trained, few_digits, seeds=5)
    with pytest.raises(ValueError, match="samples must be 1 or more; got 0"):
        DistillationExplorer(trained, few_digits, samples=0)


# Curves of pruning


@pytest.mark.usefixtures("big")
def test_curves_of_a_big_model_have_fewer_points_and_the_chosen_one_is_exact(
    opened: Open, few_digits: Dataset, trained: ConvNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "SLICE_SECONDS", 1e-9)  # 64 at a time
    seen: list[tuple[str, list[Point]]] = []
    with measure._alone(None):
        explorer = opened(PruningExplorer(trained, few_digits, ratio=0.6, seconds=1e-6))
        explorer.status.observe(lambda _: seen.append((words(explorer), list(explorer.points()))), "value")
    explorer.wait(PATIENCE)
    parameters = sum(each.numel() for each in trained.parameters())
    assert seen[0] == (f"Ranking {parameters:,} parameters: the first answer takes a moment.", [])
    dense = next(points[0] for _, points in seen if points)  # a first look, painted before the ranking
    assert dense.ratio == 0 and dense.accuracy.n == 64 and not dense.whole
    assert explorer.point.whole and explorer.point.accuracy == measure.accuracy(explorer.model, few_digits.validation)
    explorer.wait_curves(PATIENCE)
    points = explorer.points()
    assert [point.ratio for point in points if not point.whole] == sorted(pruning.COARSE_FIRST[:5])
    assert {point.accuracy.n for point in points if not point.whole} == {320}  # 300 or a slice more
    sized = "Sized for 1e-06 s here: 5 of 40 ratios a curve, 300 of 539 validation images a point"
    assert words(explorer).endswith(f"{sized}; seconds=None takes all.")
    assert "seconds=1e-06" in explorer.code()
    settle(explorer, ratio=0.4)  # of the curve, so far on a part
    assert explorer.point.whole and explorer.point.accuracy.n == 539
    assert opened(PruningExplorer(trained, few_digits, seconds=None))._sure


@pytest.mark.usefixtures("big")
def test_a_long_fine_tuning_leaves_fewer_points(few_digits: Dataset, trained: ConvNet, opened: Open) -> None:
    with measure._alone(None):
        explorer = opened(PruningExplorer(trained, few_digits))
        explorer._point_seconds, explorer._sample_seconds = 0.1, 1e-4
        # 2 curves x 40 x (0.1 + 539e-4) = 12 s; an epoch is 200 x 3 x 1e-4 = 0.06 s a point
        assert explorer._plan(PruningMethod()) == (40, None)
        assert explorer._plan(PruningMethod(importance="taylor")) == (40, None)  # three curves
        assert explorer._plan(PruningMethod(epochs=9)) == (40, None)  # 55.5 s of 60
        assert explorer._plan(PruningMethod(epochs=10)) == (20, 1000)
        assert explorer._plan(PruningMethod(importance="taylor", epochs=9)) == (20, 1000)


@pytest.mark.usefixtures("big")
def test_a_scan_of_a_big_model_has_fewer_points(opened: Open, few_digits: Dataset, trained: ConvNet) -> None:
    explorer = opened(SensitivityExplorer(trained, few_digits, seconds=1e-9))
    explorer.wait(PATIENCE)
    assert explorer.sensitivity.ratios == scanning.FEW_RATIOS
    assert {each.n for way in explorer.sensitivity.accuracy.values() for each in way} == {200}
    assert explorer.accuracies["global"].n == 200
    sized = "Sized for 1e-09 s here: 5 of 9 ratios a layer, 200 of 539 validation images; seconds=None takes all."
    assert words(explorer).endswith(sized)
    settle(explorer, importance="taylor")
    assert explorer.sensitivity.ratios == scanning.FEW_RATIOS


# What a demanding reader expects to be told


class Softmaxed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return self.inner(x).softmax(1)


def test_probabilities_in_place_of_logits_are_told(opened: Open, few_digits: Dataset, trained: ConvNet) -> None:
    soft = Softmaxed(trained)
    pruned, student = opened(PruningExplorer(soft, few_digits)), opened(DistillationExplorer(soft, few_digits, width=4))
    plain = opened(PruningExplorer(trained, few_digits))
    for explorer, said in (
        (pruned, "It answers probabilities, not logits: its losses are wrong; leave out its softmax."),
        (
            student,
            "The teacher answers probabilities, not logits: its soft labels are too flat; leave out its softmax.",
        ),
    ):
        explorer.wait(PATIENCE)
        assert said in words(explorer)
    plain.wait(PATIENCE)
    assert "probabilities" not in words(plain)
    assert training.evaluate(soft, few_digits.validation).probabilities
    assert not training.evaluate(trained, few_digits.validation).probabilities


def test_a_model_that_only_guesses_is_told(opened: Open, few_digits: Dataset, trained: ConvNet) -> None:
    blank = models.ConvNet()
    nn.init.zeros_(list(blank.parameters())[-2])  # of the last layer: its bias decides, always the same class
    labels = few_digits.validation.labels.tolist()
    chance = max(labels.count(label) for label in set(labels)) / len(labels)
    assert training.chance(few_digits.validation.labels) == pytest.approx(chance)
    said = f"only guesses: its interval holds chance ({100 * chance:.0f} %)."
    for net, told in ((blank, True), (trained, False)):
        pruned = opened(PruningExplorer(net, few_digits).set(renew=False, ratio=0.0))
        for explorer in (
            pruned,
            opened(SensitivityExplorer(net, few_digits)),
            opened(DistillationExplorer(net, few_digits)),
        ):
            explorer.wait(PATIENCE)
            assert (said in words(explorer)) == told


def test_fine_tuning_has_a_learning_rate_and_says_when_it_went_astray(
    opened: Open, few_digits: Dataset, trained: ConvNet
) -> None:
    from kit import prune

    explorer = opened(PruningExplorer(trained, few_digits, ratio=0.8))
    explorer.wait(PATIENCE)
    before = explorer.point
    settle(explorer, lr=0.1)
    assert explorer.point is before and "learning rate" not in words(explorer)  # nothing is tuned
    settle(explorer, epochs=2)
    assert explorer.code().endswith(".set(epochs=2, lr=0.1)")
    assert "then 2 epochs of fine-tuning at a learning rate of 0.1" in words(explorer)
    direct = prune.fine_tune(prune.weights(trained, ratio=0.8), few_digits, epochs=2, lr=0.1, seed=0)
    counts = training.evaluate(direct, few_digits.validation)
    assert explorer.point.loss == pytest.approx(counts.loss, rel=1e-4)
    assert ("went astray" in words(explorer)) == (counts.loss > 1.5 * np.log(10))
    object.__setattr__(explorer.point, "loss", 3.46)
    astray = "Fine-tuning went astray (its loss is 3.46, that of a guess 2.3): take a smaller lr than 0.1."
    assert astray in explorer.in_words
    settle(explorer, lr=1e-3)
    usual = prune.fine_tune(prune.weights(trained, ratio=0.8), few_digits, epochs=2, seed=0)
    assert explorer.point.loss == pytest.approx(training.evaluate(usual, few_digits.validation).loss, rel=1e-4)
    assert "learning rate" not in words(explorer) and "astray" not in words(explorer)


def test_words_call_samples_by_their_noun(opened: Open, tiny: Dataset, teacher: models.MLP) -> None:
    texts = dataclasses.replace(tiny, noun="texts")
    for make in (PruningExplorer, SensitivityExplorer, DistillationExplorer):
        explorer = opened(make(teacher, texts))
        explorer.wait(PATIENCE)
        assert " texts" in words(explorer) and "image" not in words(explorer) and "sample" not in words(explorer)
    assert explorer.figures["answers"].layout.yaxis.title.text == "of its texts, %"
    assert list(explorer.transfers)[2] == "few texts" and explorer.image.description == "text"
