"""What is special to the gradient explorer; what all explorers keep to is in explorer_contract.py."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kit import board, models
from kit.data import Dataset
from kit.explorers import GradientExplorer, sizing
from kit.explorers.gradient import BACKS, SPACE, STOPS, TERMS, WIDTH
from kit.plots.gradient import NAMES, TRAINED
from kit.search.gradient import Differences, Implicit, Unrolled, Way, network
from kit.training import Cancelled, Diverged
from tests.explorer_contract import picture
from tests.hands import PATIENCE, words
from tests.nets import already_set, same
from tests.strangers import STRANGERS

Opened = Callable[[GradientExplorer], GradientExplorer]
SMALL: dict[str, Any] = {"steps": 8, "samples": 40}


def net() -> models.MLP:
    return models.MLP((64, 6, 10), seed=3)


@pytest.fixture(scope="module")
def explorer(digits: Dataset, board_apart: None) -> Iterator[GradientExplorer]:
    made = GradientExplorer(net(), digits, **SMALL)
    yield made
    made.close()


def by_torch(model: nn.Module, data: Dataset, decay: float, steps: int, samples: int, lr: float = 0.2) -> float:
    """Validation loss after a plain loop of torch's own optimiser."""
    model, train = copy.deepcopy(model), data.train.first(samples)
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=decay)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(model(train.inputs), train.labels).backward()
        optimiser.step()
    with torch.no_grad():
        return float(F.cross_entropy(model(data.validation.inputs), data.validation.labels))


def test_the_curve_is_of_networks_that_torch_trains_alike(explorer: GradientExplorer, digits: Dataset) -> None:
    explorer.wait_curves()
    assert list(explorer.curve) == list(STOPS) and len(STOPS) <= 64
    for stop in (STOPS[0], 0.004, STOPS[-1]):
        assert explorer.curve[stop].value == pytest.approx(by_torch(net(), digits, stop, 8, 40), abs=1e-5)
    assert explorer.curve[0.002].n == len(digits.validation)
    assert explorer.loss.value == pytest.approx(explorer.curve[0.002].value, abs=1e-5)
    lowest = min(explorer.curve, key=lambda stop: explorer.curve[stop].value)
    below = explorer.loss.value - explorer.curve[lowest].value
    assert f"The curve is lowest at {lowest:g}, {below:.3f} below this (" in explorer.in_words
    table = explorer.table()
    assert len(table[table["curve"] == TRAINED]) == len(STOPS)


@pytest.mark.parametrize("solver", ["cg", "neumann"])
def test_slopes_and_costs_are_those_of_the_ways(explorer: GradientExplorer, digits: Dataset, solver: Any) -> None:
    explorer.set(weight_decay=0.01, back=3, terms=5, solver=solver, damping=1.0).wait()
    problem = network(net(), dataclasses.replace(digits, train=digits.train.first(40)), steps=8)
    hyper = problem.coordinates({"weight_decay": 0.01})
    ways: dict[str, Way] = {
        "unrolled": Unrolled(3),
        "implicit": Implicit(5, solver, 1.0),
        "differences": Differences(WIDTH),
    }
    for name, way in ways.items():
        wanted, got = way.at(problem, hyper), explorer._latest().chosen[name]
        assert got.value == explorer.slopes[name] == pytest.approx(float(wanted.slope["weight_decay"]), rel=1e-3)
        assert (got.cost, got.held) == (wanted.cost, wanted.held)
        assert f", {wanted.cost:,}" in explorer.in_words.replace(" for ", ", ")
    assert explorer.exact == pytest.approx(float(Unrolled().at(problem, hyper).slope["weight_decay"]), rel=1e-4)
    assert list(explorer.found) == list(NAMES) and len(explorer.found["unrolled"]) == 9
    assert len(explorer.found["implicit"]) <= TERMS[-1] and len(explorer.found["differences"]) == 1
    explorer.set(back=8).wait()
    assert explorer.slopes["unrolled"] == explorer.exact
    assert "100 % by unrolling all 8 steps" in explorer.in_words
    assert same(explorer.model, explorer._network(0, problem.path(hyper)[-1].weights))
    explorer.reset()


def test_the_drawn_tangent_has_the_slope_and_goes_through_the_point(explorer: GradientExplorer) -> None:
    explorer.set(weight_decay=0.005, back=8).wait()
    line = next(trace for trace in explorer.figures["loss"].data if trace.name == "unrolled")
    rise = (line.y[2] - line.y[0]) / math.log(line.x[2] / line.x[0])
    assert rise == pytest.approx(explorer.exact) and (line.x[1], line.y[1]) == (0.005, explorer.loss.value)
    assert explorer.here.values[:2] == [0.005, explorer.loss.value]
    explorer.reset()


def test_what_is_known_is_not_trained_again(explorer: GradientExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer.set(weight_decay=0.001).wait()
    explorer.set(weight_decay=0.002).wait()
    with monkeypatch.context() as patch:
        patch.setattr(explorer, "_train", None)  # whoever calls it fails
        for move in ({"back": 2}, {"terms": 40}, {"damping": 0.3}, {"weight_decay": 0.001}, {"rate": 2.0}):
            explorer.set(**move).wait()
    explorer.reset()


def test_the_point_is_shown_before_its_slopes(explorer: GradientExplorer) -> None:
    explorer.wait_curves()
    said: list[str] = []
    explorer.status.observe(lambda change: said.append(change["new"]), "value")
    explorer.set(weight_decay=0.014).wait()
    explorer.status.unobserve_all("value")
    firsts = [text for text in said if "Weight decay 0.014" in text]
    assert "slope" not in firsts[0] and "unrolling" in firsts[1] and "finite differences" not in firsts[1]
    assert "finite differences" in firsts[-1]
    explorer.reset()


def test_solutions_that_end_early_are_said(explorer: GradientExplorer) -> None:
    explorer.set(terms=60).wait()
    key = explorer.settings.key, explorer.settings.solver, explorer.settings.damping
    whole = explorer._solved[key]
    explorer._solved[key] = whole[:3]
    explorer._move()
    assert "3 of 60 implicit terms" in explorer.in_words
    assert explorer.slopes["implicit"] == whole[2].value
    explorer._solved[key] = whole
    explorer.reset()


def test_steps_go_downhill_until_they_are_too_short(digits: Dataset, own_board: Any, opened: Opened) -> None:
    made = opened(GradientExplorer(models.MLP((64, 10)), digits, weight_decay=STOPS[-1], steps=40, samples=40))
    made.set(back=40, rate=5.0)
    losses = [made.loss.value]
    for _ in range(4):
        start, slope = made.weight_decay.value, made.slopes["unrolled"]
        made.step_button.click()
        made.wait()
        losses.append(made.loss.value)
        away = math.log(made.weight_decay.value / start) + made.rate.value * slope
        assert abs(away) <= math.log(10) / 40 + 0.05 or made.weight_decay.value in (STOPS[0], STOPS[-1])
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 0.1
    walked = made.trail
    assert walked[0] == STOPS[-1] and walked[-1] == made.weight_decay.value
    drawn = next(trace for trace in made.figures["loss"].data if trace.name == "your walk")
    assert list(drawn.x) == list(walked) and list(drawn.y) == losses[: len(walked)]
    made.undo()
    made.wait()
    assert made.trail == walked[:-1]
    made.redo()
    made.set(seed=1).wait()
    assert made.trail == ()  # that is not the walk of these first weights
    made.set(seed=0)
    assert made.trail == walked
    made.set(rate=1.0, way="differences", weight_decay=0.0025).wait()
    made.step()
    made.wait()
    assert made.weight_decay.value == 0.0025
    said = f"The step is too short to reach another stop: the walk ends here. {made.in_words}"
    assert words(made) == said
    made.set(weight_decay=0.025)
    assert made.trail == () and made.code().endswith(".set(weight_decay=0.025, back=40, way='differences', rate=1.0)")


def test_a_seed_draws_other_first_weights(explorer: GradientExplorer, digits: Dataset) -> None:
    explorer.set(seed=5)
    other = models.MLP((64, 6, 10), seed=5)
    assert explorer.loss.value == pytest.approx(by_torch(other, digits, 0.002, 8, 40), abs=1e-5)
    explorer.reset()


@pytest.mark.parametrize("kind", ["tied pair", "features, too", "frozen", "float64"])
def test_models_that_no_cohort_takes_are_trained_one_by_one(
    kind: str, digits: Dataset, own_board: Any, opened: Opened
) -> None:
    if kind in STRANGERS:
        model = STRANGERS[kind]().eval()
    else:
        model = net().double() if kind == "float64" else net()
        next(model.parameters()).requires_grad_(kind == "float64")
    before, few = copy.deepcopy(model), dataclasses.replace(digits, validation=digits.validation.first(60))
    made = opened(GradientExplorer(model, few, steps=2, samples=20))
    made.wait_curves()
    problem = network(model, dataclasses.replace(few, train=few.train.first(20)), steps=2)
    for stop in (STOPS[0], STOPS[-1]):
        assert made.curve[stop].value == pytest.approx(problem.objective({"weight_decay": stop}), abs=1e-6)
    picture(made)
    assert same(model, before) and made.seed.layout.display == "none"
    first, ended = (next(each.parameters()) for each in (before, made.model))
    assert torch.equal(first, ended) == (kind == "frozen")
    with pytest.raises(ValueError, match="seed must lie in 0 .. 0"):
        made.set(seed=1)


@pytest.mark.parametrize("cohort", [True, False])
def test_what_diverges_is_said_and_left_out_of_the_curve(
    cohort: bool, digits: Dataset, own_board: Any, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GradientExplorer, "_rest", PATIENCE)  # the curve grows here alone
    made = opened(GradientExplorer(net() if cohort else net().double(), digits, steps=30, samples=20))
    made.wait()
    made._curve.clear()
    made._problems[0], made._lr = dataclasses.replace(made._problem(0), lr=1e30), 1e30
    made.set(weight_decay=0.004)
    with pytest.raises(Diverged, match="the training diverged in step .*; try a smaller lr than 1e"):
        made.wait()
    assert words(made).startswith("the training diverged") and "last answer: Weight decay 0.002" in words(made)
    answer = made._answered
    assert answer is not None
    missing = made._missing(answer)[0]
    made._grow(answer, missing, Event())
    assert set(made._curve.values()) == {None} and len(made._missing(answer)[0]) < len(missing) and made.curve == {}
    picture(made)


def test_the_work_is_sized_and_the_words_say_so(
    digits: Dataset, own_board: Any, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "SURE", 0.0)
    made = opened(GradientExplorer(net(), digits, seconds=1e-9))
    said = "Sized for 1e-09 s a weight decay here: 12 steps, 12 training images; seconds=None takes all."
    assert said in made.in_words and "steps=12, lr=0.2, samples=12" in made.code()
    asked = opened(GradientExplorer(net(), digits, steps=3, samples=30, seconds=1e-9))
    assert asked._sized == "" and len(asked.found["unrolled"]) == 4


def test_a_loss_that_is_no_number_leaves_a_gap(digits: Dataset, own_board: Any, opened: Opened) -> None:
    made = opened(GradientExplorer(net(), digits, steps=2, samples=20))
    made.wait_curves()
    huge = {name: 1e30 * each.detach() for name, each in net().named_parameters()}  # finite, its logits are not
    with pytest.raises(Cancelled):
        made._measure((0, STOPS[0]), huge, already_set())
    assert STOPS[0] in made.curve  # what was cancelled is no gap
    assert made._measure((0, STOPS[0]), huge, Event()) is None
    assert STOPS[0] not in made.curve and len(made.curve) == len(STOPS) - 1


def test_long_trainings_can_be_stopped(
    digits: Dataset, own_board: Any, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow in (False, True):
        monkeypatch.setattr(sizing, "SURE", 1.0 if slow else 1e12)
        made = opened(GradientExplorer(net(), digits, **SMALL))
        made.wait_curves()
        busy: list[bool] = []
        with monkeypatch.context() as patch:
            patch.setattr(made, "_busy", busy.append)
            for move in ({"seed": 3}, {"solver": "neumann"}):
                busy.clear()
                made.set(**move).wait()
                assert any(busy) == slow


def test_shares_of_the_slope_are_said(explorer: GradientExplorer) -> None:
    explorer.wait_curves()
    lowest = min(explorer.curve, key=lambda stop: explorer.curve[stop].value)
    explorer.set(weight_decay=lowest).wait()
    assert "The curve is lowest here." in explorer.in_words
    key = explorer.settings.key
    weights, found = explorer._known[key]
    shares = {-0.1: "the wrong sign", 0.0: "0 %", 0.007: "0.7 %", 1.04: "104 %", 11.0: "over 1000 %"}
    for share, words_ in shares.items():
        only = [found["differences"][0]._replace(value=share * explorer.exact)]
        explorer._known[key] = weights, {**found, "differences": only}
        explorer._move()
        assert f", {words_} by finite differences, for 4," in explorer.set(back=2).in_words
    assert "unstable" not in explorer.in_words
    apart = found["differences"][0]._replace(value=explorer.exact - 1.01 * explorer.loss.value)
    explorer._known[key] = weights, {**found, "differences": [apart]}
    explorer._move()
    assert "The training is unstable here: take a smaller lr." in explorer.in_words
    explorer._known[key] = weights, found
    explorer.reset()


def test_a_network_that_only_guesses_is_told(digits: Dataset, own_board: Any, opened: Opened) -> None:
    blank = net()
    for parameter in blank.parameters():
        parameter.data.zero_()
    made = opened(GradientExplorer(blank, digits, steps=1, samples=20, lr=0.001))
    chance = 100 * digits.validation.labels.bincount().max() / len(digits.validation)
    assert f"It only guesses: its interval holds chance ({chance:.0f} %)." in made.in_words
    assert made.exact == 0 and "Here it does not depend on the weight decay." in made.in_words  # all is flat
    picture(made)


def test_a_click_goes_to_a_point_and_a_pin_says_how_it_was_trained(explorer: GradientExplorer, digits: Dataset) -> None:
    explorer._clicked("loss", TRAINED, 0.01, 0.5)
    explorer._clicked("loss", "unrolled", 0.02, 0.5)
    explorer._clicked("slopes", TRAINED, 0.02, 0.5)
    assert explorer.weight_decay.value == 0.01
    explorer.pin()
    explorer.wait()
    row = board.frame(digits.key).iloc[-1]
    assert row["name"] == "MLP, weight decay 0.01" and row["accuracy"] == explorer._latest().point.accuracy.value
    assert row["settings"] == {"weight_decay": 0.01, "seed": 0, "lr": 0.2, **SMALL}
    explorer.unpin()
    explorer.reset()


def test_stops_are_round_and_in_the_range_of_the_search() -> None:
    assert {0.0001, 0.001, 0.002, 0.004, 0.01} < set(STOPS) and SPACE.holds(STOPS[0]) and SPACE.holds(STOPS[-1])
    assert list(STOPS) == sorted(set(STOPS)) and list(BACKS) == sorted(set(BACKS))


def test_bad_arguments_are_refused(digits: Dataset) -> None:
    wrong: list[tuple[nn.Module, dict[str, Any], str]] = [
        (net(), {"weight_decay": 0.0021}, "weight_decay must be one of the slider's 61 stops"),
        (net(), {"steps": 0}, "steps must be 1 or more; got 0"),
        (net(), {"samples": 1}, "samples must be 2 or more; got 1"),
        (net(), {"lr": 5}, "^lr must be a number from 0.001 to 1; got 5.$"),
        (net(), {"seconds": 0}, "seconds .* must be"),
        (net().requires_grad_(False), {}, "model has no parameter to train"),
        (net().to(torch.bfloat16), {}, "float32 or float64"),
        (models.ResNet(widths=(4, 6)), {}, "changes with each answer, so no slope holds; call model.eval"),
        (models.MLP((6, 3)), {}, "takes samples of 6 numbers"),
    ]
    for model, settings, match in wrong:
        with pytest.raises(ValueError, match=match):
            GradientExplorer(model, digits, **settings)
    for given in ((nn.Linear, digits), (net(), digits.train)):
        with pytest.raises(TypeError, match="must be a"):
            GradientExplorer(*given)
