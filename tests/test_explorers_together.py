from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from kit import board, compress, together
from kit.data import Dataset
from kit.explorers import TogetherExplorer
from kit.explorers import together_searches as room
from kit.explorers.together_searches import Searches
from kit.search import EHVI, NSGA2, Goal, Goals, ParEGO, Random, Study
from kit.search.trials import Trial
from kit.training import Cancelled
from tests.hands import PATIENCE, is_error, recover, settle, words
from tests.toy_together import GOALS, Toy, size, widest_first, worth

MADE: dict[str, Callable[[int], Any]] = {
    "random": Random,
    "NSGA-II": lambda seed: NSGA2(seed=seed),
    "ParEGO": lambda seed: ParEGO(seed=seed),
    "EHVI": lambda seed: EHVI(seed=seed),
}


@pytest.fixture(scope="module")
def shared(digits: Dataset) -> Iterator[TogetherExplorer]:
    made = TogetherExplorer(Toy(digits), method="random", trials=32, rivals={"by hand": widest_first})
    with contextlib.closing(made) as explorer:
        yield explorer


@pytest.fixture
def explorer(shared: TogetherExplorer, own_board: Any) -> TogetherExplorer:
    recover(shared)
    return shared


@pytest.fixture
def opened() -> Iterator[Callable[..., TogetherExplorer]]:
    with contextlib.ExitStack() as stack:
        yield lambda problem, **how: stack.enter_context(contextlib.closing(TogetherExplorer(problem, **how)))


def by_hand(method: str, seed: int, budget: int) -> Study:
    study = Study(Toy.space, objectives=GOALS.goals)
    return study.run(Toy().batch, MADE[method](seed), budget=budget, batch=8)


def configs(trials: tuple[Trial, ...]) -> list[Any]:
    return [(trial.config, trial.values) for trial in trials]


def plain(**more: Any) -> Any:
    """A problem that is only what it must be, with other values where asked for."""

    class Plain:
        space, goals = Toy.space, GOALS

        def __call__(self, config: Mapping[str, Any]) -> dict[str, float]:
            return {"accuracy": worth(config), "bytes": size(config)}

    for name, value in more.items():
        setattr(Plain, name, value)
    return Plain()


@pytest.mark.parametrize("method", list(room.METHODS))
def test_what_it_ships_is_the_best_of_the_study_within_the_limit(explorer: TogetherExplorer, method: str) -> None:
    study = by_hand(method, 3, 16)
    for afford in (400, 1000, 5000):
        settle(explorer, method=method, seed=3, budget=16, afford=afford)
        assert configs(explorer.trials) == configs(study.trials)
        assert configs(explorer.front) == configs(study.front)
        best = study.best_within(bytes=afford)
        assert explorer.chosen is not None and explorer.chosen.config == best.config
        assert f"{best.values['bytes']:,.0f} bytes" in words(explorer)
        assert f"{100 * best.values['accuracy']:.1f} % in the search" in words(explorer)
        assert explorer.bound.at == afford and explorer.bound.text == f"{afford:,} bytes"


def test_a_larger_budget_goes_on(opened: Callable[..., TogetherExplorer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TogetherExplorer, "_rest", PATIENCE)  # nothing in the background
    toy = Toy()
    explorer = opened(toy, method="random", trials=32)
    for budget, asked in ((16, 16), (8, 16), (32, 32), (16, 32), (32, 32)):
        settle(explorer, budget=budget)
        assert toy.asked == asked and len(explorer.trials) == budget
    assert configs(explorer.trials) == configs(by_hand("random", 0, 32).trials)


def test_a_stopped_search_goes_on_where_it_stopped() -> None:
    toy, cancel = Toy(), Event()
    searches = Searches(toy, {}, None)

    def stop(trial: Trial) -> None:
        if trial.number == 9:
            cancel.set()

    search = ("NSGA-II", 5, 32)
    with pytest.raises(Cancelled):
        searches.run(search, cancel, stop)
    assert toy.asked == len(searches.told(search)) == 16 and searches.lacks(search)
    searches.run(search, Event())
    assert toy.asked == 32 and not searches.lacks(search)
    assert configs(searches.told(search)) == configs(by_hand("NSGA-II", 5, 32).trials)
    assert len(searches.told((*search[:2], 8))) == 8


def test_the_volumes_are_those_of_studies_by_hand(explorer: TogetherExplorer) -> None:
    settle(explorer, method="ParEGO", against="by hand", repeats=4, budget=16)
    explorer.wait_curves(PATIENCE)
    for method in ("random", "ParEGO", "by hand"):
        studies = [widest_first(16, seed) if method == "by hand" else by_hand(method, seed, 16) for seed in range(4)]
        values = np.array([study.hypervolume() for study in studies])  # the limits are the corner
        found = explorer.volumes()[method]
        low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
        assert (found.value, found.low, found.high, found.n) == pytest.approx((values.mean(), low, high, 4))
        assert f"{method} {found.value:.3f} ({found.low:.3f} to {found.high:.3f})" in explorer.in_words
        (curve,) = [trace for trace in explorer.figures["volume"].data if trace.name == method]
        assert (curve.x[-1], curve.y[-1]) == (16, pytest.approx(values.mean()))
        assert explorer.volumes(8)[method].value == pytest.approx(np.mean([each.hypervolumes()[7] for each in studies]))
    for wrong in (0, 17):
        with pytest.raises(ValueError, match=f"^budget must lie in 1 .. 16; got {wrong}"):
            explorer.volumes(wrong)


def test_the_front_is_measured_anew_and_loses(explorer: TogetherExplorer) -> None:
    toy = Toy()
    settle(explorer, method="NSGA-II", budget=32, afford=1000, repeats=1)
    assert explorer.chosen is not None
    assert explorer.retested == toy.retest(explorer.chosen.config)
    explorer.wait_curves(PATIENCE)
    anew = [toy.retest(trial.config)[0].value for trial in explorer.front]
    lost = np.array([trial.values["accuracy"] for trial in explorer.front]) - anew
    assert lost.mean() > 0  # chosen by what they scored
    assert f"With other seeds its members lose {100 * lost.mean():.1f} points" in words(explorer)
    table = explorer.table()
    again = table[table["curve"] == "front, measured anew"]
    assert again["value"].to_numpy() == pytest.approx(100 * np.array(anew))
    assert (again["high"] > again["low"]).all()
    x, y, low, high = explorer.ship.values
    assert x == explorer.chosen.values["bytes"]
    assert y == pytest.approx(100 - 100 * toy.retest(explorer.chosen.config)[0].value) and high < y < low
    shares = explorer._searches.shares(explorer.settings.search)
    assert max(shares["bytes"], key=lambda name: shares["bytes"][name]) != "lr"  # it changes no size


def test_a_rival_stands_beside(explorer: TogetherExplorer) -> None:
    settle(explorer, against="by hand", budget=24)
    explorer.wait_curves(PATIENCE)
    wanted = widest_first(24, 0).front
    (drawn,) = [trace for trace in explorer.figures["plane"].data if trace.name == "front, by hand"]
    assert list(drawn.x) == [trial.values["bytes"] for trial in wanted]
    settle(explorer, method="by hand", seed=2)
    assert configs(explorer.front) == configs(widest_first(24, 2).front)
    settle(explorer, budget=16)
    assert configs(explorer.trials) == configs(widest_first(16, 2).trials)  # its plan depends on its budget


def test_a_rival_is_stopped_where_it_can_be() -> None:
    cancel, given = Event(), list[Any]()

    def rival(budget: int, seed: int, cancel: Event) -> Study:
        given.append((budget, seed))
        cancel.set()
        return widest_first(budget, seed)

    searches = Searches(Toy(), {}, {"mine": rival})
    with pytest.raises(Cancelled):
        searches.run(("mine", 1, 16), cancel)
    assert given == [(16, 1)] and searches.lacks(("mine", 1, 16)) and searches.told(("mine", 1, 16)) == ()
    assert searches.batches("mine", 1, 16) == [("mine", 1, 16)]
    assert searches.batches("random", 1, 16) == [("random", 1, 8), ("random", 1, 16)]


def test_the_mark_follows_the_slider_at_once(explorer: TogetherExplorer) -> None:
    settle(explorer, method="NSGA-II", budget=32, afford=5000)
    front, held, goes_on = explorer.front, Event(), Event()

    def hold(cancel: Event) -> None:
        held.set()
        assert goes_on.wait(PATIENCE)

    explorer._request(hold, keep=True)
    assert held.wait(PATIENCE)  # the worker is busy with something else
    for afford in (300, 1000, 180):
        explorer.afford.value = afford
        fits = [trial.values["bytes"] for trial in front if trial.values["bytes"] <= afford]
        assert explorer.ship.values[:1] == fits[-1:] and explorer.bound.at == afford
    goes_on.set()
    explorer.wait(PATIENCE)
    assert explorer.ship.values[:1] == fits[-1:]


def test_the_joint_problem_brings_its_corner_its_rivals_and_its_words(few_digits: Dataset) -> None:
    logits = torch.nn.functional.one_hot(few_digits.train.labels, 10).float()
    problem = together.Problem(few_digits, logits, epochs=1)
    explorer = TogetherExplorer(problem, method="one at a time", trials=8)
    with contextlib.closing(explorer):
        explorer.set(afford=3000, repeats=1)
        explorer.wait(PATIENCE)
        assert explorer.method.options == (*MADE, "one at a time", "by hand")
        assert explorer._searches.corner == together.CORNER
        assert configs(explorer.trials) == configs(together.one_at_a_time(problem, 8, 0).trials)
        assert "No trial has 50.0 % with 3,000 bytes or better" in words(explorer) or "hidden units" in words(explorer)
        settle(explorer, method="by hand")
        assert configs(explorer.trials) == configs(together.by_hand(problem, 8).trials)


def test_clicks_go_there(explorer: TogetherExplorer) -> None:
    settle(explorer, method="NSGA-II", budget=32)
    trial = explorer.front[len(explorer.front) // 2]
    explorer._clicked("plane", "front, as searched", trial.values["bytes"], 10.0)
    explorer.wait(PATIENCE)
    assert explorer.afford.value >= trial.values["bytes"] and explorer.chosen is not None
    assert explorer.chosen.values["bytes"] >= trial.values["bytes"]
    explorer._clicked("volume", "random", 15.0, 1.0)
    explorer.wait(PATIENCE)
    assert (explorer.method.value, explorer.budget.value) == ("random", 16)
    before = explorer.settings
    for figure, curve in (("plane", ""), ("plane", "steps"), ("volume", ""), ("recipe", "front")):
        explorer._clicked(figure, curve, 200.0, 1.0)
    assert explorer.settings == before


def test_where_nothing_fits_it_says_how_near_it_came(opened: Callable[..., TogetherExplorer], digits: Dataset) -> None:
    explorer = opened(Toy(digits), method="random", trials=8, corner={"bytes": 4000, "accuracy": 0.9})
    settle(explorer, afford=140)
    least = min(
        (trial for trial in explorer.trials if trial.values["accuracy"] >= 0.9), key=lambda t: t.values["bytes"]
    )
    assert explorer.chosen is None and explorer.retested is None and explorer.ship.values == []
    assert words(explorer).startswith(
        f"Nothing fits into 140 bytes: the smallest of the front reaches {100 * least.values['accuracy']:.1f} % with "
        f"{least.values['bytes']:,.0f} bytes. random, 8 trials: "
    )
    with pytest.raises(ValueError, match="^nothing fits into 140 bytes, so there is no network"):
        _ = explorer.model
    explorer.pin()
    with pytest.raises(ValueError, match="^nothing fits into 140 bytes"):
        explorer.wait(PATIENCE)
    none = opened(Toy(digits), method="random", trials=8, corner={"accuracy": 0.99})
    none.wait_curves(PATIENCE)
    best = max(none.trials, key=lambda trial: trial.values["accuracy"])
    assert none.front == () and words(none).startswith("No trial has 99.0 % with 5,000 bytes or better: the smallest")
    assert f"{100 * best.values['accuracy']:.1f} % with {best.values['bytes']:,.0f} bytes" in words(none)
    assert none.volumes()["random"].value == 0


def test_a_front_of_one(opened: Callable[..., TogetherExplorer]) -> None:
    same = plain(__call__=lambda self, config: {"accuracy": config["ratio"] / 2 + 0.5, "bytes": 900 - config["ratio"]})
    explorer = opened(same, method="random", trials=8)
    explorer.wait_curves(PATIENCE)
    assert len(explorer.front) == 1 and "1 on the front" in words(explorer) and "lose" not in words(explorer)
    settle(explorer, afford=1000)
    assert explorer.chosen == explorer.front[0]


def test_failed_trials_are_counted_and_a_problem_that_always_fails_says_why(
    opened: Callable[..., TogetherExplorer],
) -> None:
    def sometimes(self: Any, config: Mapping[str, Any]) -> dict[str, float]:
        if config["ratio"] > 0.5:
            return {"accuracy": float("nan"), "bytes": 100.0}
        return {"accuracy": worth(config), "bytes": size(config)}

    explorer = opened(plain(__call__=sometimes), method="random", trials=16)
    settle(explorer, budget=16)
    failed = sum(trial.config["ratio"] > 0.5 for trial in explorer.trials)
    assert 0 < failed < 16 and f"random, 16 trials ({failed} failed): " in words(explorer)
    explorer.wait_curves(PATIENCE)
    assert not is_error(explorer)

    def never(self: Any, config: Mapping[str, Any]) -> dict[str, float]:
        raise OSError("no disk <b>")

    broken = opened(plain(__call__=never), method="random", trials=16)
    with pytest.raises(RuntimeError, match="objective failed in each of 3 trials.*no disk"):
        broken.wait(PATIENCE)
    assert is_error(broken) and "no disk &lt;b&gt;" in broken.status.value
    searches = Searches(plain(__call__=never), {}, None)
    searches.give_up(("random", 0, 8))
    assert not searches.lacks(("random", 0, 8)) and searches.volumes([0], 8, 8) == {}
    assert searches.explained(("random", 0, 8))  # too few for a forest


def test_a_network_that_diverges_when_measured_anew_is_left_out(opened: Callable[..., TogetherExplorer]) -> None:
    def diverges(self: Any, config: Mapping[str, Any]) -> Any:
        raise ValueError("diverged")

    explorer = opened(plain(retest=diverges), method="random", trials=16)
    explorer.wait_curves(PATIENCE)
    assert explorer.retested is None and not is_error(explorer) and "other seeds" not in words(explorer)


def test_somebody_elses_problem_needs_little(opened: Callable[..., TogetherExplorer], own_board: Any) -> None:
    goals = Goals({"recall": Goal(maximise=True), "seconds": Goal()})
    other = plain(
        goals=goals, __call__=lambda self, config: {"recall": worth(config), "seconds": float(config["width"])}
    )
    explorer = opened(other, method="NSGA-II", trials=16, corner={"recall": 0.3, "seconds": 40})
    settle(explorer, against="random")
    explorer.wait_curves(PATIENCE)
    assert explorer.title == "TogetherExplorer: Plain"
    assert "width " in words(explorer) and " seconds" in words(explorer) and "bytes" not in words(explorer)
    assert "other seeds" not in words(explorer)
    assert explorer.figures["plane"].layout.xaxis.title.text == "seconds"
    explorer.keep()
    settle(explorer, budget=16)  # compared in words, without networks
    for ask in (explorer.pin, explorer.save_model):
        ask()
        with pytest.raises(ValueError, match=r"^problem needs make\(config\) and a dataset"):
            explorer.wait(PATIENCE)
    assert board.frame().empty


def test_the_pin_has_the_bytes_of_the_file(explorer: TogetherExplorer, digits: Dataset) -> None:
    settle(explorer, afford=5000, method="NSGA-II", budget=32)
    explorer.pin("shipped")
    explorer.wait(PATIENCE)
    assert explorer.chosen is not None
    net, data = Toy(digits).make(explorer.chosen.config)
    (row,) = board.frame(digits.key).to_dict("records")
    assert row["file_bytes"] == len(data) == len(compress.encode(net).data)
    assert row["technique"] == "search" and row["settings"]["width"] == explorer.chosen.config["width"]
    (drawn,) = [trace for trace in explorer.figures["plane"].data if trace.name == "on the board"]
    assert list(drawn.x) == pytest.approx([len(data)])


def test_the_stops_are_round_and_end_at_the_corner(opened: Callable[..., TogetherExplorer]) -> None:
    for most in (3000, 4321.5, 0.02, 7e6):
        goals = Goals({"accuracy": Goal(maximise=True, limit=0.5), "bytes": Goal(log=True, limit=most)})
        explorer = opened(plain(goals=goals), method="random", trials=8)
        stops = explorer.afford.stops
        explorer.close()
        assert stops[-1] == most and most / 30 <= stops[0] < most / 24
        assert np.all(np.diff(stops) > 0) and np.max(np.diff(np.log(stops))) < 0.25
        assert all(float(f"{stop:.2g}") == stop for stop in stops[:-1])


@pytest.mark.parametrize(
    ("problem", "how", "kind", "sentence"),
    [
        (lambda config: {}, {}, TypeError, "problem must be callable, with a space and goals"),
        (SimpleNamespace(space=Toy.space, goals=GOALS), {}, TypeError, "problem must be callable"),
        (plain(goals=None), {}, TypeError, r"problem.goals must be Goals.*; got None"),
        (
            plain(goals=Goals({"bytes": Goal(), "accuracy": Goal(maximise=True)})),
            {},
            ValueError,
            "problem.goals must be a share to maximise, then a size to minimise; got bytes, accuracy, maximise False, ",
        ),
        (
            plain(goals=Goals({"accuracy": Goal(maximise=True, limit=0.5), "bytes": Goal()})),
            {},
            ValueError,
            "corner needs the worst bytes that counts, such as bytes=",
        ),
        (plain(), {"corner": {"byte": 9}}, ValueError, "byte is no objective; the study has accuracy, bytes"),
        (plain(), {"corner": {"bytes": -9}}, ValueError, "bytes must be above 0; got -9"),
        (plain(), {"method": "grid"}, ValueError, "method must be one of random, NSGA-II, ParEGO, EHVI; got 'grid'"),
        (plain(), {"trials": 12}, ValueError, "trials must be a multiple of 8; got 12"),
        (plain(), {"trials": 0}, ValueError, "trials must be 8 or more; got 0"),
        (plain(), {"trials": 8.0}, TypeError, "trials must be a whole number; got 8.0"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    problem: Any, how: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=f"^{sentence}"):
        TogetherExplorer(problem, **how)
