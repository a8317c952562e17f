"""Searches: many networks as one cohort against scikit-learn, the budget slider under a hand, regret against peers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from scipy.stats import loguniform, uniform
from sklearn.model_selection import RandomizedSearchCV
from sklearn.neural_network import MLPClassifier

from kit import data
from kit.data import Dataset
from kit.search import Float, Random, Space, Study, networks
from tests.benchmarks import regret, slider
from tests.benchmarks.networks import searched
from tests.benchmarks.registry import Say
from tests.benchmarks.rows import Row, Target
from tests.browser.lab import NotebookPage

CONFIGURATIONS, EPOCHS, HIDDEN, BATCH = 256, 20, 16, 64
ROUNDS = 3
SLIDER_ROUNDS, NEW_SEARCHES = 6, 6
METHODS = ("random", "Bayesian")

EXPLORER = """
from kit.explorers import SearchExplorer
explorer = SearchExplorer(digits)
explorer.wait_curves()
explorer
"""
# Answers with milliseconds, from now until other trials are drawn.
NEW_TRIALS = """async () => {
    const dots = () => [...document.querySelectorAll('.kit-trials .kit-dot')].map(dot => dot.getAttribute('cx')).join();
    const before = dots(), began = performance.now();
    while (performance.now() - began < 20000) {
        await new Promise(requestAnimationFrame);
        if (dots() !== before) return performance.now() - began;
    }
    return null;
}"""


def benchmark(say: Say) -> Iterator[Row]:
    """Rows of the three parts; the last one needs Optuna and BoTorch."""
    yield _against_scikit_learn(say)
    yield from _under_a_hand(say)
    yield from regret.benchmark(say)


def _against_scikit_learn(say: Say) -> Row:
    digits = data.digits()
    _cohort(digits)  # warm
    ours, rival = [], []
    for number in range(ROUNDS):
        (took, best), (search_took, search_best) = _cohort(digits), _randomised(digits)
        ours.append(took)
        rival.append(search_took)
        own, other = f"cohort {took:.2f} s, best {best:.3f}", f"search {search_took:.2f} s, best {search_best:.3f}"
        say(f"round {number + 1} of {ROUNDS}: {own}; {other}")
    what = f"random search over {CONFIGURATIONS} MLPs, {EPOCHS} epochs: RandomizedSearchCV(n_jobs=2) / one cohort"
    return Row.of("search.cohort", what, statistics.median(ours), statistics.median(rival), "s", Target("at least", 8))


def _cohort(digits: Dataset) -> tuple[float, float]:
    space = Space({"lr": Float(1e-4, 1e-1, log=True), "beta1": Float(0.5, 0.99)})
    objective = networks.Networks(digits, hidden=HIDDEN, epochs=EPOCHS, batch_size=BATCH)
    began = time.perf_counter()
    study = Study(space, maximise=True)
    study.run(objective, Random(0), budget=CONFIGURATIONS, batch=CONFIGURATIONS)
    best = study.best.value
    assert best is not None
    return time.perf_counter() - began, best


def _randomised(digits: Dataset) -> tuple[float, float]:
    """As many fits; scoring is part of both searches."""
    network = MLPClassifier((HIDDEN,), batch_size=BATCH, max_iter=EPOCHS, alpha=0.0, n_iter_no_change=EPOCHS)
    laws = {"learning_rate_init": loguniform(1e-4, 1e-1), "beta_1": uniform(0.5, 0.49)}
    seconds, search = searched(RandomizedSearchCV, network, laws, digits, n_iter=CONFIGURATIONS, random_state=0)
    return seconds, float(search.best_score_)


def _under_a_hand(say: Say) -> Iterator[Row]:
    """The budget slider after all searches are done; then new methods and seeds."""
    probe = {"kind": "attribute", "root": ".kit-explorer", "mark": ".kit-trials", "name": "data-shown"}
    contest = {"echo": slider.rivals()["echo"], "budget": slider.Rival([slider.TRAIN, EXPLORER], slider.HANDLE, probe)}
    taken: list[float] = []
    with slider.pages_of(contest, say) as pages:
        for _ in slider.rounds(contest, pages, SLIDER_ROUNDS, say):
            pass
        for number in range(NEW_SEARCHES):
            taken.append(_new_search(pages["budget"], number))
            say(f"new seed, {METHODS[number % 2]}: first trials after {taken[-1]:.0f} ms")
    echo, budget = (contest[name].median for name in ("echo", "budget"))
    what = "key press to trials that appear, searches done / slider and label"
    yield Row.of("search.budget", what, budget, echo, "ms", Target("at most", 1.5))
    what = "new seed: click to the first trials, the slowest of several (limit 1000 ms)"
    yield Row.of("search.first", what, max(taken), 1000.0, "ms", Target("at most", 1))


def _new_search(page: NotebookPage, number: int) -> float:
    """Press "New seeds" and wait for other trials."""
    explorer = slider.ready(page, f"explorer.method.value = {METHODS[number % 2]!r}; explorer.wait_curves()")
    press = explorer.locator("button", has_text="New seeds").click
    return float(slider.timed(page, f"({NEW_TRIALS})()", press, "search: new seeds were"))
