"""What is special to the suspects explorer; what all explorers keep to is in explorer_contract.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from torch import nn

from kit import measure, models
from kit.data import Dataset, Split, from_arrays
from kit.explorers import SuspectsExplorer, sizing
from kit.explorers.suspects import STEPS, TRAINING, WAYS
from kit.plots.suspects import RANKINGS, ROWS
from kit.search.gradient import auc, clean, flip, halves, network, sample_losses, trained
from tests.hands import PATIENCE, settle, words


def few(digits: Dataset) -> Dataset:
    return dataclasses.replace(digits, train=digits.train.first(300), validation=digits.validation.first(200))


@pytest.fixture(scope="module")
def explorer(digits: Dataset) -> Iterator[SuspectsExplorer]:
    made = SuspectsExplorer(models.MLP((64, 10), seed=5), few(digits), steps=20)
    yield made
    made.close()


@pytest.mark.parametrize(("to", "way", "step"), [("any", "unrolled", STEPS), ("next", "implicit", 3)])
def test_it_shows_what_the_kit_computes(
    explorer: SuspectsExplorer, digits: Dataset, to: Any, way: str, step: int
) -> None:
    settle(explorer, share=0.2, to=to, way=way, step=step, seed=2)
    noisy, flipped = flip(few(digits), 0.2, 2, to=to)
    dataset, held_out = halves(noisy, 2)
    model = models.MLP((64, 10), seed=0)
    models.initialise(model, 2)
    problem = network(model, dataset, ["sample_weight"], steps=20, **TRAINING)
    record = [*islice(clean(problem, WAYS[way]), step + 1)]
    torch.testing.assert_close(explorer.weights, record[-1].weights)
    assert torch.equal(explorer.flipped, flipped)
    before = trained(model, record[0].state)
    losses = sample_losses(before, dataset.train)
    assert explorer.areas == {
        RANKINGS[0]: auc(-record[-1].weights, flipped),
        RANKINGS[1]: auc(losses, flipped),
    }
    kept = (losses <= losses.sort().values[-1 - int(flipped.sum())]).float()
    rivals = [problem.path({"sample_weight": each})[-1] for each in (kept, (~flipped).float())]
    wanted = [measure.accuracy(trained(model, each), held_out) for each in (record[0].state, record[-1].state, *rivals)]
    assert explorer.accuracies == dict(zip(ROWS, wanted, strict=True))
    assert explorer.found == int(flipped[record[-1].suspects[:20]].sum())
    for said in (wanted[1].percent, explorer.areas[RANKINGS[0]].percent, f"<b>{explorer.found}</b> are flipped"):
        assert said in explorer.status.value


def test_steps_are_found_and_nothing_is_learned_twice(
    explorer: SuspectsExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(explorer, share=0.2, to="any", way="unrolled", step=STEPS, seed=2)

    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("kit.explorers.suspects._Run.learn", never)
    settle(explorer, step=0)
    assert torch.equal(explorer.weights, torch.ones(300)) and "paired" not in words(explorer)
    assert explorer.accuracies["learned weights"] == explorer.accuracies["all labels"]
    settle(explorer, step=5)
    assert len(explorer.weights.unique()) > 5 and "paired" in words(explorer)


def test_a_stopped_learning_goes_on_where_it_was(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = SuspectsExplorer(models.MLP((64, 10)), few(digits), steps=5)
    explorer.wait(PATIENCE)
    learned = 0
    learn = type(explorer._run(explorer.settings)).learn

    def some(run: Any, cancel: Any) -> None:
        nonlocal learned
        learned += 1
        if learned == 4:
            explorer.stop()
        learn(run, cancel)

    monkeypatch.setattr("kit.explorers.suspects._Run.learn", some)
    explorer.set(seed=1)
    explorer.wait(PATIENCE)
    assert "Stopped" in words(explorer) and learned == 4
    settle(explorer, step=7)
    assert learned == 4 + 10 and len(explorer._run(explorer.settings).record) == STEPS + 1
    explorer.close()


def test_with_nothing_flipped_it_speaks_of_the_data(explorer: SuspectsExplorer) -> None:
    settle(explorer, share=0.0, to="any", way="unrolled", step=STEPS, seed=0)
    assert explorer.areas == {} and explorer.found == 0 and not explorer.flipped.any()
    assert "may be wrong in the data itself" in words(explorer) and "AUC" not in words(explorer)
    assert explorer.accuracies["clean labels"] == explorer.accuracies["all labels"]


def test_a_large_one_is_sized_and_says_so(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "SURE", 1.0)
    explorer = SuspectsExplorer(models.MLP((64, 10)), digits, steps=5, seconds=1e-6)
    explorer.wait(PATIENCE)
    assert len(explorer.flipped) == 250 and "250 of 898 training images" in words(explorer)
    assert "seconds=1e-06" in explorer.code()
    explorer.close()
    explorer = SuspectsExplorer(models.MLP((64, 10)), few(digits), steps=5, seconds=None)
    explorer.wait(PATIENCE)
    assert len(explorer.flipped) == 300 and "Sized" not in words(explorer)
    explorer.close()


def test_the_model_stays_and_what_it_knew_is_gone(digits: Dataset, trained: nn.Module) -> None:
    before = {name: each.clone() for name, each in trained.state_dict().items()}
    explorer = SuspectsExplorer(trained, few(digits), steps=2)
    explorer.wait(PATIENCE)
    assert explorer.accuracies["all labels"].value < 0.6  # two steps from the start, not from where it was
    assert all(torch.equal(each, before[name]) for name, each in trained.state_dict().items())
    explorer.close()


def test_a_network_that_only_guesses_is_told(explorer: SuspectsExplorer, digits: Dataset) -> None:
    settle(explorer, share=0.2)
    assert "only guesses" not in words(explorer)
    blind = dataclasses.replace(few(digits), train=Split(torch.zeros(300, 1, 8, 8), digits.train.labels[:300]))
    other = SuspectsExplorer(models.MLP((64, 10)), blind, steps=2)
    other.wait(PATIENCE)
    assert "Even on clean labels it only guesses" in words(other)
    other.close()


def test_samples_that_are_no_images(digits: Dataset) -> None:
    x = torch.rand(120, 6, generator=torch.Generator().manual_seed(0))
    dataset = from_arrays(x, (x[:, 0] > x[:, 1]).long(), name="rows")
    explorer = SuspectsExplorer(nn.Sequential(nn.Linear(6, 2)), dataset, steps=10)
    explorer.wait(PATIENCE)
    assert "samples of validation" in words(explorer) and len(explorer.figures["suspects"].data[1].text) == 20
    explorer.close()


@pytest.mark.parametrize(
    ("model", "settings", "kind", "sentence"),
    [
        (models.MLP((64, 10)), {"share": 0.15}, ValueError, "share must be one of the slider's 6 stops"),
        (models.MLP((64, 10)), {"steps": 0}, ValueError, "steps must be 1 or more; got 0"),
        (models.MLP((64, 10)), {"seconds": 0}, ValueError, "seconds .* must be above 0"),
        (models.MLP((32, 10)), {}, ValueError, "model"),
        (nn.Sequential(nn.Flatten(), nn.Bilinear(64, 64, 10)), {}, (TypeError, ValueError), "model"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.PReLU()), {}, TypeError, "cannot initialise 2 .PReLU."),
    ],
)
def test_what_cannot_be_is_refused(digits: Dataset, model: Any, settings: Any, kind: Any, sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        SuspectsExplorer(model, digits, **settings)
