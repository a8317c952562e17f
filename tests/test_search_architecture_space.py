"""Cells as a space to be searched: what is an option, what a Gaussian process tells them by, what is refused."""

from __future__ import annotations

import itertools
import pickle
import re
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from kit.cells import EDGES, OPERATIONS, Cell, networks, parse
from kit.search import Bayes, Choice, Random, Study, bayes
from kit.search.architecture import space_of
from kit.search.architecture.space import edges
from kit.search.places import Encoding
from kit.search.surrogate import Kernel, Posterior

SOME = networks()[::9]


def convolutions(config: dict[str, Any]) -> float:
    """Depends on each edge alone: what a model of the edges can learn."""
    operations = parse(config["cell"]).operations
    return sum((at + 1) * (name == "conv3") - 2 * (name == "pool") for at, name in enumerate(operations)) / 20


def test_options_are_the_texts_of_the_canonical_cells() -> None:
    space = space_of(networks())
    assert (space.names, space.count) == (("cell",), 1217)
    choice = space.parameters["cell"]
    assert isinstance(choice, Choice)
    assert [parse(text) for text in choice.options] == list(networks())
    other = parse("conv1 | none none | skip none")
    assert other != other.canonical
    same = space_of([other, "conv3 | skip conv1 | none pool"])
    assert same == space_of([other.canonical, parse("conv3 | skip conv1 | none pool").canonical])
    assert same.decode(same.encode({"cell": str(other.canonical)})) == {"cell": str(other.canonical)}
    assert pickle.loads(pickle.dumps(same)) == same


@pytest.mark.parametrize("cells", [[SOME[0]], [SOME[0], SOME[0]], ["skip | none none | skip none", *networks()]])
def test_a_space_without_a_choice_is_refused(cells: Any) -> None:
    came = f"got {len(cells):,}, of {len({parse(str(cell)).formula for cell in cells}):,} networks"
    with pytest.raises(ValueError, match=f"^cells must be of two or more networks, none twice; {re.escape(came)}.$"):
        space_of(cells)


@pytest.mark.parametrize(
    ("cell", "error", "sentence"),
    [
        ("conv3", ValueError, "cell must have 1, 2 and 2 operations"),
        (
            "conv9 | skip none | skip none",
            ValueError,
            "cell must be one of none, skip, pool, conv1, conv3; got 'conv9'",
        ),
        ("conv3 | none none | none none", ValueError, "cell must lead from its input to its output"),
        (None, TypeError, "cell must be a Cell or its text; got None"),
    ],
)
def test_cells_that_are_none_are_refused(cell: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        space_of([SOME[0], cell, SOME[1]])


def test_none_are_refused() -> None:
    with pytest.raises(ValueError, match="^cells must name at least one cell; got none.$"):
        space_of([])


@pytest.mark.parametrize("cells", [SOME[0], str(SOME[0]), 3])
def test_one_cell_is_not_several(cells: Any) -> None:
    with pytest.raises(
        TypeError, match=f"^cells must be several, such as a list of them; got {re.escape(repr(cells))}.$"
    ):
        space_of(cells)


def test_a_process_sees_one_column_for_each_operation_on_each_edge() -> None:
    columns = list(itertools.product(range(len(EDGES)), OPERATIONS))
    for cell in SOME:
        wanted = [float(cell.operations[edge] == name) for edge, name in columns]
        assert edges(cell).tolist() == wanted
    space = space_of(SOME)
    choice = space.parameters["cell"]
    assert isinstance(choice, Choice)
    encoding = Encoding(space)
    places = np.array([space.encode({"cell": str(cell)}) for cell in SOME])
    features = encoding.features(places)
    assert features.tolist() == [edges(cell).tolist() for cell in SOME]
    assert [encoding.place(row) for row in features] == places.tolist()
    distances = ((features[:, None] - features) ** 2).sum(2) / 2
    apart = [[sum(a != b for a, b in zip(x.operations, y.operations, strict=True)) for y in SOME] for x in SOME]
    assert np.array_equal(distances, apart)  # networks are as unlike as the operations in which they differ


@pytest.mark.parametrize("acquisition", ["ei", "pi", "ucb"])
def test_bayes_tries_the_network_that_promises_most_of_all(monkeypatch: pytest.MonkeyPatch, acquisition: Any) -> None:
    """The acquisition of every untried network by its formula, with SciPy's normal law; the largest is proposed."""
    made: list[Posterior] = []

    def spy(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> Posterior:
        made.append(Posterior(kernel, x, y))
        return made[-1]

    monkeypatch.setattr(bayes, "Posterior", spy)
    space, method = space_of(SOME), Bayes(acquisition, start=6, seed=1)
    study = Study(space, maximise=True).run(convolutions, Random(1), budget=6)
    for _ in range(5):
        trials = study.trials
        proposal = method.propose(space, trials, maximise=True)
        assert proposal is not None
        process = made[-1]
        rest = [cell for cell in SOME if str(cell) not in {trial.config["cell"] for trial in trials}]
        mean, std = process.predict(np.array([edges(cell) for cell in rest]))
        best = process.predict(process.x)[0].min()
        z = (best - method.exploration - mean) / std
        score = {
            "ei": std * (z * norm.cdf(z) + norm.pdf(z)),
            "pi": norm.cdf(z),
            "ucb": method.exploration * std - mean,
        }[acquisition]
        at = rest.index(parse(proposal.config["cell"]))
        assert score[at] == pytest.approx(score.max(), rel=1e-6)
        assert np.median(score) < score.max()
        study.run(convolutions, method, budget=len(trials) + 1)


def test_bayes_learns_from_the_edges() -> None:
    """In 30 trials it finds the best of all 1,217, which chance would find once in 40 runs."""
    best = max(convolutions({"cell": str(cell)}) for cell in networks())
    study = Study(space_of(networks()), maximise=True).run(convolutions, Bayes(seed=0), budget=30)
    assert study.best.value == best
    assert len({trial.config["cell"] for trial in study.trials}) == 30


def test_what_is_not_connected_is_still_encoded() -> None:
    assert edges(Cell(("none",) * 5)).reshape(5, 5).tolist() == [[1.0, 0, 0, 0, 0]] * 5
