"""Hypergradients against closed forms, another implementation and finite differences; what they cost and refuse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from threading import Event
from typing import Any

import pytest
import torch
from torch import nn

from kit import data
from kit.search import Float
from kit.search.gradient import Differences, Implicit, Problem, State, Tensors, Unrolled, Way, hypergradient, network
from kit.search.gradient.hypergradient import Linear, conjugate_gradient, linearised, neumann, reverse
from kit.training import Cancelled, Diverged
from tests.inner import X_NEW, Y_NEW, X, Y, at_minimum, by_hand, closed_form, curvature, draw, ridge, smooth, watched
from tests.nets import already_set
from tests.strangers import By

BACKS = [0, 1, 2, 7, None]
X_SQUARE, X_Y = X_NEW.T @ X_NEW / len(X_NEW), X_NEW.T @ Y_NEW / len(X_NEW)
TRAIN_Y = X.T @ Y / len(X)
MODES: list[Any] = ["reverse", "forward"]
WAYS: list[Way] = [Unrolled(), Unrolled(mode="forward"), Implicit(3), Implicit(3, "neumann"), Differences()]


def close(found: Tensors, wanted: Tensors, tolerance: float) -> None:
    assert list(found) == list(wanted)
    for name, each in wanted.items():
        assert found[name].shape == each.shape
        scale = float(each.abs().max()) or 1.0
        assert float((found[name] - each).abs().max()) <= tolerance * scale, name


# -- right -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    [
        Unrolled(),
        Unrolled(back=90),
        Unrolled(mode="forward"),
        Implicit(terms=5),
        Implicit(terms=200),
        Implicit(terms=300, solver="neumann"),
        Implicit(terms=300, solver="neumann", rate=0.5),
        Differences(width=1e-4),
    ],
    ids=str,
)
def test_at_the_minimum_of_ridge_regression_every_way_gives_the_closed_form(way: Way) -> None:
    problem = ridge()
    found = way.at(problem, problem.hyper)
    wanted = closed_form()[1]
    assert float(found.slope["decay"]) == pytest.approx(wanted, rel=1e-8)
    assert found.loss == pytest.approx(float(problem.score({"w": closed_form()[0]}, problem.hyper)), rel=1e-10)
    assert not found.note


@pytest.mark.parametrize("back", BACKS)
@pytest.mark.parametrize("mode", MODES)
def test_unrolling_is_what_autograd_gives_for_the_loop_with_its_graph(mode: Any, back: int | None) -> None:
    for problem in (smooth(), smooth(momentum=0.0)):
        found = Unrolled(back, mode).at(problem, problem.hyper)
        close(found.slope, by_hand(problem, problem.hyper, back), 1e-12)


def test_what_each_step_computed_may_be_kept() -> None:
    looks: list[int] = []
    problem = watched(smooth(), looks.append)
    for back in (None, 0, 5, 99):
        looks.clear()
        found = Unrolled(back, recompute=False).at(problem, problem.hyper)
        assert len(looks) == problem.steps
        close(found.slope, Unrolled(back).at(problem, problem.hyper).slope, 1e-14)
    assert len(problem.recorded_path(problem.hyper, back=5)[1]) == 5


def test_weights_that_the_loss_takes_no_notice_of_and_weights_without_curvature_are_no_trouble() -> None:
    problem = Problem(
        lambda w, h, at: w["curved"].square() * h["steep"] + w["line"],
        lambda w, h: (w["curved"] + w["line"] + w["idle"]).square(),
        {name: torch.tensor(1.0, dtype=torch.float64) for name in ("curved", "line", "idle")},
        {"steep": Float(0, 9)},
        {"steep": torch.tensor(1.0, dtype=torch.float64)},
        steps=2,
    )
    # w1 = 1 - 0.2 h, w2 = w1 (1 - 0.2 h) = 0.64, dw2/dh = -0.4 w1 = -0.32; the line ends at 0.8, the idle one at 1
    for way in (Unrolled(), Unrolled(mode="forward"), Unrolled(recompute=False), Differences(1e-5)):
        assert float(way.at(problem, problem.hyper).slope["steep"]) == pytest.approx(2 * 2.44 * -0.32, rel=1e-8)
    # (2 h + damping) dw/dh = -2 w; without damping the flat directions end conjugate gradients
    found = Implicit(terms=9, damping=1e-9).at(problem, problem.hyper)
    assert float(found.slope["steep"]) == pytest.approx(2 * 2.44 * -0.64, rel=1e-6)


def test_a_linear_loss_moves_by_its_rate() -> None:
    problem = Problem(
        lambda w, h, at: w["w"].sum(),
        lambda w, h: w["w"].sum(),
        {"w": torch.ones(2)},
        {"lr": Float(0, 1)},
        {"lr": torch.tensor(0.1)},
        steps=3,
    )
    for way in (Unrolled(), Unrolled(mode="forward"), Differences()):
        assert float(way.at(problem, problem.hyper).slope["lr"]) == pytest.approx(-6, rel=1e-4)


def test_going_back_yields_the_slope_of_every_number_of_steps() -> None:
    problem = smooth()
    slopes = list(reverse(problem, problem.hyper, problem.path(problem.hyper)))
    assert len(slopes) == problem.steps + 1
    for back in (0, 1, 5, 12):
        close(slopes[back], by_hand(problem, problem.hyper, back), 1e-12)


def test_more_steps_back_than_there_are_take_all() -> None:
    problem = smooth()
    path = problem.path(problem.hyper, steps=4)
    close(Unrolled(99).at(problem, problem.hyper, path).slope, Unrolled().at(problem, problem.hyper, path).slope, 0)


@pytest.mark.parametrize("mode", MODES)
def test_unrolled_slopes_are_those_of_finite_differences(mode: Any) -> None:
    problem = smooth()
    rival = Differences(1e-4).at(problem, problem.hyper).slope
    close(Unrolled(mode=mode).at(problem, problem.hyper).slope, rival, 1e-5)


def test_the_slopes_of_a_trained_network_are_those_of_finite_differences() -> None:
    net = By(lambda net, x: net.a(x.double().flatten(1)), a=nn.Linear(64, 10).double())
    tune = ["weight_decay", "lr", "label_smoothing"]
    problem = network(net, data.digits().part(100), tune, per="layer", pieces=2, steps=10, label_smoothing=0.1)
    rival = Differences(1e-4).at(problem, problem.hyper).slope
    close(Unrolled().at(problem, problem.hyper).slope, rival, 1e-5)


def test_single_precision_gives_the_same_to_its_rounding() -> None:
    double, single = smooth(), smooth(torch.float32)
    found = Unrolled().at(single, single.hyper).slope
    assert {each.dtype for each in found.values()} == {torch.float32}
    close({name: each.double() for name, each in found.items()}, Unrolled().at(double, double.hyper).slope, 1e-4)


def test_as_steps_grow_unrolled_and_implicit_meet_at_the_rate_of_the_contraction() -> None:
    """What is left of w - w* shrinks by 1 - lr a in the direction of the least curvature a, and the slopes with it."""
    problem = ridge()
    slowest = 1 - problem.lr * float(torch.linalg.eigvalsh(curvature())[0])

    def off(way: Way, steps: int) -> float:
        path = problem.path(problem.hyper, steps=steps)
        return abs(float(way.at(problem, problem.hyper, path).slope["decay"]) - closed_form()[1])

    assert off(Implicit(5), 60) / off(Implicit(5), 40) == pytest.approx(slowest**20, rel=0.05)
    unrolled = off(Unrolled(), 60) / off(Unrolled(), 40)  # its derivative shrinks as t (1 - lr a)^t
    assert slowest**20 < unrolled < 2 * slowest**20


def test_the_implicit_slope_off_the_minimum_is_off_by_no_more_than_the_residual_allows() -> None:
    """|dV/dh - found| <= |w - w*| times the Lipschitz constant in w of V_w A^-1 decay w, and |w - w*| <= |L_w| / m."""
    problem, (w, wanted) = ridge(), closed_form()
    a = torch.linalg.eigvalsh(curvature())
    steep = torch.linalg.matrix_norm(X_SQUARE, 2)
    down = torch.linalg.vector_norm(X_SQUARE @ w - X_Y)
    for steps in (1, 3, 10, 30):
        found = Implicit(5).at(problem, problem.hyper, problem.path(problem.hyper, steps=steps))
        assert found.residual is not None
        away = found.residual / float(a[0])
        assert torch.linalg.vector_norm(found.state.weights["w"] - w) <= away
        most = 0.3 / float(a[0]) * away * float(steep * (w.norm() + away) + down)
        assert 0 < abs(float(found.slope["decay"]) - wanted) <= most


def test_the_implicit_slope_is_that_of_the_loss_of_the_last_step() -> None:
    plain = ridge(6)
    problem = replace(plain, train=lambda w, h, at: plain.train(w, h, at) * (1 if at == 5 else 7))
    path = problem.path(problem.hyper)
    slope = Implicit(5).at(plain, plain.hyper, path).slope
    close(Implicit(5).at(problem, problem.hyper, path).slope, slope, 1e-12)
    w, v = path[-1].weights["w"], X_SQUARE @ path[-1].weights["w"] - X_Y
    wanted = -0.3 * v @ torch.linalg.solve(curvature(), w)
    assert float(slope["decay"]) == pytest.approx(float(wanted), rel=1e-10)


def test_the_residual_is_the_norm_of_the_training_slope() -> None:
    problem = ridge(3)
    found = Implicit().at(problem, problem.hyper)
    w = found.state.weights["w"]
    assert found.residual == pytest.approx(float((curvature() @ w - TRAIN_Y).norm()), rel=1e-12)
    assert Unrolled().at(problem, problem.hyper).residual is None


@pytest.mark.parametrize("terms", [1, 2, 9])
def test_at_a_minimum_the_series_is_plain_unrolling_that_stands_still(terms: int) -> None:
    problem = ridge()
    path = [at_minimum(problem)] * (terms + 1)
    found = Implicit(terms, "neumann").at(problem, problem.hyper, path)
    close(found.slope, Unrolled(terms).at(problem, problem.hyper, path).slope, 1e-12)


def test_each_prefix_of_the_terms_is_the_slope_of_so_many() -> None:
    problem = ridge(10)
    path = problem.path(problem.hyper)
    solvers: list[Any] = ["cg", "neumann"]
    for solver in solvers:
        slopes = [slope() for slope in Implicit(4, solver).slopes(problem, problem.hyper, path)]
        assert len(slopes) == 4
        for terms in (1, 4):
            close(slopes[terms - 1], Implicit(terms, solver).at(problem, problem.hyper, path).slope, 0)


def test_a_hyper_parameter_that_only_the_score_knows_has_its_direct_slope() -> None:
    problem = Problem(
        lambda w, h, at: w["w"].square().sum(),
        lambda w, h: (w["w"].sum() - h["target"]).square(),
        {"w": torch.ones(2)},
        {"target": Float(-5, 5)},
        {"target": torch.tensor(3.0)},
        steps=4,
    )
    for way in WAYS:
        found = way.at(problem, problem.hyper)
        wanted = -2 * (float(found.state.weights["w"].sum()) - 3)
        assert float(found.slope["target"]) == pytest.approx(wanted, rel=1e-3)


def test_a_score_that_does_not_look_at_the_weights_is_no_saddle() -> None:
    problem = replace(ridge(2), score=lambda w, h: h["decay"].square())
    found = Implicit(3).at(problem, problem.hyper)
    assert float(found.slope["decay"]) == pytest.approx(2 * float(problem.hyper["decay"]))
    assert not found.note


# -- the two solvers ---------------------------------------------------------------------------------------------------


def test_the_series_leaves_exactly_what_theory_says_in_each_direction() -> None:
    a, right, rate = torch.tensor([0.1, 1.0, 2.5], dtype=torch.float64), draw(3), 0.7
    for terms, x in enumerate(islice(neumann(lambda v: a * v, right, rate), 20), start=1):
        torch.testing.assert_close(right / a - x, (1 - rate * a) ** terms * right / a, rtol=1e-10, atol=1e-12)


def test_conjugate_gradients_solve_in_as_many_products_as_there_are_unknowns() -> None:
    b = draw(8, 8)
    a, right = b @ b.T + torch.eye(8), draw(8, seed=1)
    wanted = torch.linalg.solve(a, right)
    left = [float((x - wanted) @ a @ (x - wanted)) for x in islice(conjugate_gradient(lambda v: a @ v, right), 8)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 1e-20 * left[0]


def test_conjugate_gradients_end_once_they_have_solved() -> None:
    a = torch.tensor([1.0, 1.0, 4.0, 4.0, 9.0])  # three different curvatures: three products
    *_, x = found = list(conjugate_gradient(lambda v: a * v, torch.ones(5)))
    assert len(found) < 8
    torch.testing.assert_close(x, 1 / a)


def test_conjugate_gradients_end_where_curvature_is_not_positive() -> None:
    a = torch.tensor([1.0, 2.0, -10.0])
    first, last = conjugate_gradient(lambda v: a * v, torch.tensor([1.0, 1.0, 0.1]))
    assert torch.equal(first, last)
    assert [each.tolist() for each in conjugate_gradient(lambda v: -v, torch.ones(2))] == [[1, 1]]


def saddle(steps: int = 3) -> Problem:
    """Curvature 1, 2 and -10 about the origin, slowed by the decay."""
    a, right = torch.tensor([1.0, 2.0, -10.0]), torch.tensor([1.0, 1.0, 0.1])
    return Problem(
        lambda w, h, at: (a * w["w"].square()).sum() / 2 + h["push"] * w["w"].sum(),
        lambda w, h: right @ w["w"],
        {"w": torch.zeros(3)},
        {"push": Float(-1, 1)},
        {"push": torch.tensor(0.1)},
        steps,
        lr=0.01,
    )


def test_an_early_end_at_a_saddle_is_said_and_damping_mends_it() -> None:
    problem = saddle()
    found = Implicit(10).at(problem, problem.hyper)
    assert "not positive in product 2" in found.note and "damping" in found.note
    for terms in (2, 3):  # the one that meets it is the last, or not
        assert "in product 2" in Implicit(terms).at(problem, problem.hyper).note
    assert not Implicit(1).at(problem, problem.hyper).note
    damped = Implicit(10, damping=11).at(problem, problem.hyper)
    assert not damped.note
    wanted = -(torch.tensor([1.0, 1.0, 0.1]) / torch.tensor([12.0, 13.0, 1.0])).sum()
    assert float(damped.slope["push"]) == pytest.approx(float(wanted), rel=1e-5)


def test_a_series_that_grows_is_said() -> None:
    problem = ridge()
    top = float(torch.linalg.eigvalsh(curvature())[-1])
    for rate, grows in ((1.9 / top, False), (2.1 / top, True)):
        found = Implicit(60, "neumann", rate=rate).at(problem, problem.hyper)
        assert ("the Neumann series grows" in found.note) == grows
    assert "grows" in Implicit(60, "neumann", rate=0.1).at(saddle(), saddle().hyper).note
    assert not Implicit(1, "neumann").at(problem, problem.hyper).note


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_damping_is_added_to_the_curvature(damping: float) -> None:
    problem = ridge()
    line = linearised(problem, problem.hyper, problem.path(problem.hyper)[-1].weights, 0, damping)
    found = torch.stack([line.product(each) for each in torch.eye(5, dtype=torch.float64)])
    torch.testing.assert_close(found, curvature(0.3 + damping), rtol=1e-12, atol=1e-12)


# -- cost --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """One entry for each product with a second derivative of `Implicit`."""
    seen: list[str] = []

    def counted(of: Any, name: str) -> Any:
        def call(v: Any) -> Any:
            seen.append(name)
            return of(v)

        return call

    def watching(*args: Any) -> Linear:
        line = linearised(*args)
        return line._replace(product=counted(line.product, "L_ww"), slope=counted(line.slope, "L_wh"))

    monkeypatch.setattr(hypergradient, "linearised", watching)
    yield seen


@pytest.mark.parametrize(
    "way", [Implicit(1), Implicit(4), Implicit(50), Implicit(1, "neumann"), Implicit(4, "neumann")]
)
def test_the_cost_of_terms_is_two_for_each_product(way: Implicit, products: list[str]) -> None:
    for problem in (ridge(), saddle()):
        products.clear()
        found = way.at(problem, problem.hyper)
        assert found.cost == 2 * len(products)
        assert found.held == 4 * sum(each.numel() for each in problem.start.values())
    if way.terms < 5:  # unknowns of the ridge
        assert way.at(ridge(), ridge().hyper).cost == 2 * way.terms + (2 if way.solver == "cg" else 0)


def test_the_cost_of_going_back_is_two_for_each_step_and_all_its_states_are_held() -> None:
    looks: list[int] = []
    problem = watched(smooth(), looks.append)
    path = problem.path(problem.hyper)
    looks.clear()
    found = Unrolled(5).at(problem, problem.hyper, path)
    assert looks == [11, 10, 9, 8, 7]
    assert found.cost == 2 * len(looks)
    assert found.held == sum(each.numel() for state in path[-6:-1] for part in state for each in part.values())


def test_the_cost_of_going_along_is_two_for_each_step_and_number_and_one_vector_each_is_held() -> None:
    looks: list[int] = []
    problem = watched(smooth(), looks.append)
    path = problem.path(problem.hyper)
    looks.clear()
    found = Unrolled(5, "forward").at(problem, problem.hyper, path)
    assert looks == [7, 8, 9, 10, 11]
    numbers = 15 + 3 + 1
    assert found.cost == 2 * len(looks) * numbers
    assert found.held == numbers * 2 * 16


def test_the_cost_of_differences_is_that_of_their_trainings() -> None:
    looks: list[int] = []
    problem = watched(smooth(), looks.append)
    path = problem.path(problem.hyper)
    looks.clear()
    assert Differences().at(problem, problem.hyper, path).cost == len(looks) == 2 * 12 * 19


# -- refused, stopped, left as it was ----------------------------------------------------------------------------------


def line_problem(score: Any, steps: int, start: float, lr: float = 1001.0) -> Problem:
    """One weight that is multiplied by 1 - lr in each step."""
    return Problem(
        lambda w, h, at: h["steep"] * w["w"].square() / 2,
        score,
        {"w": torch.tensor(start)},
        {"steep": Float(0.1, 10)},
        {"steep": torch.tensor(1.0)},
        steps,
        lr=lr,
    )


def test_a_slope_beyond_all_floats_is_told_by_its_name() -> None:
    problem = line_problem(lambda w, h: w["w"].square(), 12, 1e-30)
    path = problem.path(problem.hyper)
    with pytest.raises(Diverged, match="the slope in steep is no finite number"):
        Unrolled().at(problem, problem.hyper, path)


def test_a_validation_loss_beyond_all_floats_is_told() -> None:
    problem = line_problem(lambda w, h: w["w"].exp(), 2, 1e-3)
    with pytest.raises(Diverged, match="the validation loss is no finite number"):
        Unrolled(0).at(problem, problem.hyper)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_training_that_diverges_is_told(way: Way) -> None:
    problem = line_problem(lambda w, h: w["w"].square(), 40, 1.0)
    with pytest.raises(Diverged, match="diverged in step 13"):
        way.at(problem, problem.hyper)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_hyper_parameters_are_looked_at_first(way: Way) -> None:
    problem = ridge(2)
    path = problem.path(problem.hyper)
    with pytest.raises(ValueError, match="NaN or infinity"):
        way.at(problem, {"decay": torch.tensor(torch.nan, dtype=torch.float64)}, path)
    with pytest.raises(ValueError, match="path must hold at least one state"):
        way.at(problem, problem.hyper, [])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Unrolled(back=-1), "back must be 0 or more; got -1"),
        (lambda: Unrolled(mode="sideways"), "mode must be one of reverse, forward"),  # type: ignore[arg-type]
        (lambda: Implicit(terms=0), "terms must be 1 or more"),
        (lambda: Implicit(solver="lu"), "solver must be one of neumann, cg"),  # type: ignore[arg-type]
        (lambda: Implicit(damping=-1), "damping must be 0 or more"),
        (lambda: Implicit(rate=0), "rate must be above 0"),
        (lambda: Differences(width=0), "width must be above 0"),
    ],
)
def test_a_way_that_leads_nowhere_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_learning_rate_has_no_implicit_slope() -> None:
    problem = smooth()
    with pytest.raises(ValueError, match="lr has no slope by Implicit.*take Unrolled"):
        Implicit().at(problem, problem.hyper)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_each_way_stops_in_the_middle(way: Way) -> None:
    stop, looks = Event(), list[int]()

    def seen(at: int) -> None:
        looks.append(at)
        if len(looks) == (1 if isinstance(way, Implicit) else 3):
            stop.set()

    problem = watched(ridge(8), seen)
    path = problem.path(problem.hyper)
    looks.clear()
    stop.clear()
    with pytest.raises(Cancelled):
        way.at(problem, problem.hyper, path, cancel=stop)
    assert 0 < len(looks) < 8
    with pytest.raises(Cancelled):
        way.at(problem, problem.hyper, cancel=already_set())


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_nothing_else_is_touched(way: Way) -> None:
    plain = ridge(3)
    start = {"w": torch.zeros(5, dtype=torch.float64, requires_grad=True)}
    hyper = {"decay": torch.tensor(-1.2, dtype=torch.float64, requires_grad=True)}
    problem = replace(plain, start=start, hyper=hyper)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    found = way.at(problem, hyper)
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads
    assert start["w"].requires_grad and start["w"].grad is None and hyper["decay"].grad is None
    assert not any(each.requires_grad for each in (*found.slope.values(), *found.state.weights.values()))
    close(found.slope, way.at(problem, {"decay": hyper["decay"].detach()}).slope, 0)
    with torch.no_grad():
        close(found.slope, way.at(problem, problem.hyper).slope, 0)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_path_of_one_state_is_enough(way: Way) -> None:
    problem = ridge()
    found = way.at(problem, problem.hyper, [State(problem.start, problem.begin().velocity)])
    assert found.state.weights["w"].tolist() == [0] * 5
