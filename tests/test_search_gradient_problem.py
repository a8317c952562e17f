"""Training as a function: the steps of torch's SGD, coordinates and configurations, and what has no slope."""

from __future__ import annotations

import math
from dataclasses import replace
from threading import Event
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor

from kit.search import Choice, Float, Int, Space
from kit.search.gradient import Problem, State, Tensors
from kit.training import Cancelled, Diverged
from tests.inner import WIDE, closed_form, ridge, smooth, watched
from tests.nets import already_set

# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_path_is_that_of_torchs_sgd(momentum: float) -> None:
    problem = smooth(momentum=momentum)
    weights = {name: each.clone().requires_grad_() for name, each in problem.start.items()}
    stepper = torch.optim.SGD(weights.values(), lr=1.0, momentum=momentum)
    path = problem.path(problem.hyper)
    assert len(path) == 13
    for at, state in enumerate(path[1:]):
        stepper.param_groups[0]["lr"] = [0.02, 0.05, 0.01][at // 4]
        stepper.zero_grad()
        problem.train(weights, problem.hyper, at).backward()
        stepper.step()
        for name, each in weights.items():
            torch.testing.assert_close(state.weights[name], each.detach(), rtol=1e-13, atol=1e-15)


def test_a_path_goes_on_from_a_state_with_its_velocity() -> None:
    problem = ridge(30, momentum=0.9)
    whole = problem.path(problem.hyper)
    rest = problem.path(problem.hyper, state=whole[10], steps=20)
    assert len(rest) == 21
    assert rest[0] is whole[10]
    assert torch.equal(rest[-1].weights["w"], whole[-1].weights["w"])
    assert len(problem.path(problem.hyper, steps=0)) == 1


def test_a_schedule_has_equal_parts_and_its_last_rate_goes_on() -> None:
    problem = smooth(steps=7)
    rates = [round(float(problem.rate(problem.hyper, at)), 9) for at in range(9)]
    assert rates == [0.02] * 3 + [0.05] * 2 + [0.01] * 4
    three = smooth(steps=3)
    assert [round(float(three.rate(three.hyper, at)), 9) for at in range(3)] == [0.02, 0.05, 0.01]
    assert ridge().rate(ridge().hyper, 5) == 0.3


def test_it_trains_to_the_minimum() -> None:
    problem = ridge()
    torch.testing.assert_close(problem.path(problem.hyper)[-1].weights["w"], closed_form()[0])


def test_a_training_that_diverges_says_in_which_step() -> None:
    problem = ridge(2000, lr=30.0)
    with pytest.raises(Diverged, match=r"diverged in step (\d+); try a smaller lr than 30\.") as told:
        problem.path(problem.hyper)
    step = int(str(told.value).split("step ")[1].split(";")[0])
    path = problem.path(problem.hyper, steps=step - 1)
    assert path[-1].weights["w"].isfinite().all() and step < 2000
    assert not problem.step(path[-1], problem.hyper, 0).weights["w"].isfinite().all()


def test_a_learning_rate_that_is_tuned_is_the_one_that_is_named() -> None:
    problem = smooth(torch.float32, steps=60)
    with pytest.raises(Diverged, match="than 1000"):
        problem.path({**problem.hyper, "lr": torch.full((3,), math.log(1000))})


def test_it_stops_between_steps() -> None:
    stop = Event()
    problem = watched(ridge(), lambda at: stop.set() if at == 2 else None)
    with pytest.raises(Cancelled, match="after 3 steps"):
        problem.path(problem.hyper, cancel=stop)
    with pytest.raises(Cancelled, match="after 0 steps"):
        problem.path(problem.hyper, cancel=already_set())


def test_nothing_given_is_kept_or_changed() -> None:
    start = {"w": torch.zeros(5, dtype=torch.float64, requires_grad=True)}
    hyper = {"decay": torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)}
    problem = replace(ridge(3), start=start, hyper=hyper)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    first = problem.path(hyper)[-1].weights["w"]
    assert not first.requires_grad and start["w"].requires_grad and hyper["decay"].requires_grad
    with torch.no_grad():
        start["w"].fill_(7)
        hyper["decay"].fill_(7)
    assert torch.equal(problem.path(problem.hyper)[-1].weights["w"], first)
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads


def test_dictionaries_of_any_kind_and_order_will_do() -> None:
    problem = smooth()
    turned = MappingProxyType(dict(reversed(problem.hyper.items())))
    first, other = problem.path(problem.hyper)[-1], problem.path(turned)[-1]  # type: ignore[arg-type]
    assert all(torch.equal(first.weights[name], other.weights[name]) for name in first.weights)


# -- beside other searches ---------------------------------------------------------------------------------------------


def test_every_element_is_a_number_of_the_flat_space() -> None:
    problem = replace(smooth(), parts={"lr": ("early", "middle", "late")})
    names = list(problem.wide.parameters)
    assert len(names) == 15 + 3 + 1
    assert names[:2] == ["decay[0]", "decay[1]"] and names[15:] == ["lr[early]", "lr[middle]", "lr[late]", "target"]
    assert problem.wide.parameters["lr[late]"] == WIDE


def test_configurations_are_values_and_lead_back() -> None:
    problem = smooth()
    config = problem.config(problem.hyper)
    assert config["lr[1]"] == pytest.approx(0.05) and config["target"] == pytest.approx(0.7)
    assert config["decay[1]"] == pytest.approx(float(problem.hyper["decay"][0, 1].exp()))
    back = problem.coordinates(config)
    for name, each in problem.hyper.items():
        torch.testing.assert_close(back[name], each, rtol=1e-12, atol=1e-12)
    assert problem.objective(config) == pytest.approx(
        float(problem.score(problem.path(problem.hyper)[-1].weights, problem.hyper)), rel=1e-12
    )


def test_coordinates_stay_in_the_range() -> None:
    problem = smooth()
    far = {name: torch.full_like(each, 1e9) for name, each in problem.hyper.items()}
    near = problem.clamped(far)
    assert torch.allclose(near["lr"].exp(), torch.tensor(1e3, dtype=torch.float64)) and float(near["target"]) == 5
    assert problem.wide.check(problem.config(far)) == pytest.approx(problem.wide.check(problem.config(near)), rel=1e-12)
    low = problem.clamped({name: -each for name, each in far.items()})
    assert torch.allclose(low["decay"].exp(), torch.tensor(1e-6, dtype=torch.float64)) and float(low["target"]) == -5


def test_the_objective_trains_as_many_epochs_as_asked() -> None:
    looks: list[int] = []
    problem = watched(ridge(9), looks.append)
    looks.clear()
    problem.objective({"decay": 0.1}, epochs=4)
    assert looks == [0, 1, 2, 3]
    problem.objective({"decay": 0.1})
    assert len(looks) == 4 + 9


# -- refused -----------------------------------------------------------------------------------------------------------


def refused(error: type[Exception], words: str, **changes: Any) -> None:
    with pytest.raises(error, match=words) as told:
        replace(ridge(3), **changes)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("parameter", [Int(1, 4), Choice("a", "b"), 0.1])
def test_what_has_no_slope_is_to_be_searched(parameter: Any) -> None:
    refused(TypeError, r"space\['decay'\] must be a Float .*random or Bayesian search", space={"decay": parameter})


def test_settings_out_of_range_are_refused() -> None:
    refused(ValueError, "steps must be 1 or more; got 0", steps=0)
    refused(TypeError, "steps must be a whole number", steps=2.5)
    refused(ValueError, "lr must be above 0; got 0", lr=0)
    refused(ValueError, r"momentum must lie in \[0, 1\)", momentum=1)
    refused(TypeError, "space must be a dictionary of Float", space=Space({"decay": WIDE}))
    refused(ValueError, r"parts\['many'\] must hold 2 names; got 1", **many(parts={"many": ("one",)}))


def many(**changes: Any) -> dict[str, Any]:
    """A hyper-parameter of two numbers."""

    def train(w: Tensors, h: Tensors, at: int) -> Tensor:
        return (h["many"].sum() * w["w"].square()).sum()

    return {"train": train, "space": {"many": WIDE}, "hyper": {"many": torch.zeros(2, dtype=torch.float64)}, **changes}


@pytest.mark.parametrize("where", ["start", "hyper"])
def test_tensors_are_looked_at(where: str) -> None:
    name = {"start": "w", "hyper": "decay"}[where]
    entry = rf"{where}\['{name}'\]"
    good = getattr(ridge(3), where)[name]
    refused(TypeError, f"{entry} must be a tensor; got \\[0.0", **{where: {name: [0.0] * 5}})
    refused(TypeError, f"{where} must be a dictionary of tensors", **{where: good})
    refused(ValueError, f"{where} must hold at least one tensor", **{where: {}})
    refused(ValueError, f"{entry} must hold finite numbers; got NaN", **{where: {name: good + torch.nan}})
    refused(ValueError, f"{entry} must hold finite numbers; got NaN or infinity", **{where: {name: good + torch.inf}})
    refused(ValueError, f"{entry} must hold .*; got int64 of shape", **{where: {name: good.long()}})
    refused(ValueError, f"{entry} must hold .*; got bfloat16 of shape", **{where: {name: good.bfloat16()}})
    refused(ValueError, f"{entry} must hold .*; got float64 of shape \\(0,\\)", **{where: {name: good.new_zeros(0)}})
    refused(ValueError, "one dtype; got torch.float32 and torch.float64", **{where: {name: good.float()}})


def test_hyper_parameters_of_a_training_are_looked_at() -> None:
    problem = smooth()

    def told(words: str, **changes: Any) -> None:
        with pytest.raises((TypeError, ValueError), match=words) as error:
            problem.path({**problem.hyper, **changes})
        assert "\n" not in str(error.value)

    told(r"hyper\['lr'\] must be float64 of shape \(3,\); got float64 of shape \(2,\)", lr=problem.hyper["lr"][:2])
    told(r"hyper\['lr'\] must be float64 of shape \(3,\); got float32 of shape \(3,\)", lr=problem.hyper["lr"].float())
    told(r"hyper\['lr'\] must hold finite numbers; got NaN", lr=problem.hyper["lr"].log())
    told(r"hyper\['lr'\] must be a tensor", lr=[0.1, 0.1, 0.1])
    told("hyper must name decay, lr, target; got decay, lr, target, lrr", lrr=problem.hyper["lr"])
    with pytest.raises(ValueError, match="hyper must hold at least one tensor"):
        problem.path({})
    refused(ValueError, "hyper must name decay; got lr", hyper={"lr": torch.zeros((), dtype=torch.float64)})


def w_square(w: Tensors) -> Tensor:
    return w["w"].square().sum()


@pytest.mark.parametrize(
    "losses",
    [
        {"train": lambda w, h, at: w_square(w)},  # forgotten
        {"train": lambda w, h, at: w_square(w) + h["decay"]},  # moves the loss, but no step
        {"train": lambda w, h, at: w_square(w) * h["decay"].detach().exp()},  # cut off
        {"train": lambda w, h, at: w_square(w) * math.exp(float(h["decay"].detach()))},
        {"score": lambda w, h: w_square({"w": w["w"].detach()}) * w["w"].new_zeros((), requires_grad=True)},
    ],
)
def test_a_hyper_parameter_without_a_slope_is_named(losses: dict[str, Any]) -> None:
    refused(ValueError, r"hyper\['decay'\] has no slope", **losses)


def test_a_hyper_parameter_that_acts_on_the_score_alone_is_none_of_them() -> None:
    replace(ridge(3), train=lambda w, h, at: w_square(w), score=lambda w, h: w_square(w) * h["decay"])


def test_a_loss_without_a_slope_is_refused() -> None:
    refused(
        ValueError,
        "score has no slope.*a share of right answers has none, a cross-entropy has",
        score=lambda w, h: (w["w"] > 0).double().mean(),
    )
    refused(ValueError, "train has no slope, neither", train=lambda w, h, at: w["w"].detach().sum())
    refused(ValueError, "train has no slope in the weights", train=lambda w, h, at: h["decay"].exp())


def test_a_loss_that_is_no_finite_number_is_refused() -> None:
    refused(
        ValueError, "train must answer with one finite number.*; got -inf", train=lambda w, h, at: w["w"].sum().log()
    )
    refused(ValueError, "score must answer with one finite number.*; got inf", score=lambda w, h: 1 / w_square(w))
    refused(ValueError, r"got float64 of shape \(5,\)", train=lambda w, h, at: w["w"] * h["decay"])
    refused(TypeError, "the answer of score must be a tensor; got 0.5", score=lambda w, h: 0.5)


def test_a_state_is_weights_and_velocity() -> None:
    begin = ridge().begin()
    assert isinstance(begin, State)
    assert begin.velocity["w"].tolist() == [0] * 5 and begin.weights["w"] is not begin.velocity["w"]


def test_a_problem_is_made_of_plain_functions() -> None:
    """The smallest one, in single precision, with a weight and a hyper-parameter of no dimension."""
    problem = Problem(
        lambda w, h, at: (w["w"] - h["goal"]).square() / 2,
        lambda w, h: w["w"].square(),
        {"w": torch.tensor(1.0)},
        {"goal": Float(-1, 1)},
        {"goal": torch.tensor(0.5)},
        steps=2,
        lr=0.5,
    )
    assert [float(each.weights["w"]) for each in problem.path(problem.hyper)] == [1.0, 0.75, 0.625]
