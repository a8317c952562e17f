"""Searches on texts: cohorts of bags of words as objectives, slopes through embeddings and attention, wrong labels."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kit import board, models, together, training
from kit.explorers import GradientExplorer, MergeExplorer, SearchExplorer, SuspectsExplorer
from kit.plots import suspects as plots
from kit.search import Float, Int, Space, landscape
from kit.search.gradient import Cleaned, Implicit, State, Unrolled, auc, clean, flip, network, sample_losses, trained
from kit.search.networks import Networks
from tests.nets import vector
from tests.texts import tiny_texts, tokens

pytestmark = pytest.mark.usefixtures("one_thread")


def small(seed: int = 0) -> models.Transformer:
    return models.Transformer(tokens().size, 10, 3, width=8, heads=2, layers=1, seed=seed)


def bag(seed: int = 0) -> models.BagOfWords:
    return models.BagOfWords(tokens().size, 3, 4, seed=seed)


def right(net: nn.Module) -> float:
    found = training.evaluate(net, tiny_texts().validation)
    return found.correct / found.total


def test_configurations_are_scored_by_bags_of_words() -> None:
    objective = Networks(tiny_texts(), hidden=4, epochs=4, batch_size=16)
    (poor,), (good,) = objective([{"lr": 1e-4, "width": 2}, {"lr": 3e-2, "dropout": 0.1}])
    assert poor < 0.7 < 0.9 < good
    assert objective([{"lr": 3e-2, "dropout": 0.1}]) == [[good]]  # whatever else is in the batch


def test_a_landscape_of_texts_has_bags_of_words_at_its_cells() -> None:
    space = Space({"lr": Float(1e-3, 0.1, log=True), "width": Int(2, 4)})
    found = landscape.train(tiny_texts(), space, points=2, epochs=2, seeds=2, hidden=4)
    net = landscape.network(tiny_texts(), found, (1, 0), 1)
    assert isinstance(net, models.BagOfWords) and net.tokens.embedding_dim == 2
    assert right(net) == pytest.approx(found.curves[1, 1, 0, -1])
    assert found.work(tiny_texts()) == 4 * (tokens().size + 3) * 2 * (6.0 * 120 + 2.0 * 60)


@pytest.mark.usefixtures("own_board")
def test_the_search_explorer_searches_bags_of_words() -> None:
    explorer = SearchExplorer(tiny_texts(), points=3, epochs=2, seeds=2, trainings=9, seconds=None)
    try:
        explorer.wait()
        assert isinstance(explorer.model, models.BagOfWords)
        assert right(explorer.model) == explorer.profile.accuracy.value
        (code,) = (line for line in explorer.code().splitlines() if "SearchExplorer(" in line)
        assert "points=3" in code
        explorer.pin()
        explorer.wait()
        assert board.frame(explorer.dataset.key)["name"].iloc[0].startswith("BagOfWords found by ")
    finally:
        explorer.close()


@pytest.mark.parametrize("kind", ["bag of words", "transformer"])
def test_slopes_through_embeddings_and_attention_are_those_of_differences(kind: str) -> None:
    """In float64: forward mode, back through all steps, and two trainings a little to the side agree."""
    texts, net = tiny_texts().part(40), (bag() if kind == "bag of words" else small()).double()
    problem = network(net, texts, ["weight_decay"], steps=6, lr=0.3, weight_decay=0.02)
    slope = float(Unrolled().at(problem, problem.hyper).slope["weight_decay"])
    width, ends = 1e-4, []
    for side in (-width, width):
        state = problem.path({"weight_decay": problem.hyper["weight_decay"] + side})[-1]
        ends.append(float(problem.score(state.weights, problem.hyper)))
    assert slope == pytest.approx((ends[1] - ends[0]) / (2 * width), rel=1e-4)
    assert np.isfinite(float(Implicit(3).at(problem, problem.hyper).slope["weight_decay"]))


def test_a_problem_trains_a_transformer_as_torch_does() -> None:
    texts, net = tiny_texts().part(40), small(3)
    problem = network(net, texts, steps=5, lr=0.1, weight_decay=0.01)
    same = training.copy_of(net)
    stepper = torch.optim.SGD(same.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(5):
        stepper.zero_grad()
        nn.functional.cross_entropy(same(texts.train.inputs), texts.train.labels).backward()
        stepper.step()
    torch.testing.assert_close(vector(trained(net, problem.path(problem.hyper)[-1])), vector(same), atol=1e-4, rtol=0)


class Masked(nn.Module):
    """The mean of the embeddings where the mask says so, as models of other libraries take one; of all without."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(tokens().size, 4), nn.Linear(4, 3)
        models.initialise(self, 0)

    def forward(self, ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        mask = torch.ones_like(ids) if attention_mask is None else attention_mask
        means = (self.tokens(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return {"logits": self.head(means)}


def test_a_model_that_takes_a_mask_gets_one_in_a_problem_too() -> None:
    texts, net = tiny_texts(), Masked()
    problem = network(net, texts, steps=2)
    loss = training.evaluate(net, texts.validation).loss
    assert float(problem.score(problem.start, problem.hyper)) == pytest.approx(loss, rel=1e-5)
    whole = nn.functional.cross_entropy(net(texts.validation.inputs)["logits"], texts.validation.labels)
    assert abs(whole.item() - loss) > 1e-4


def test_wrong_labels_of_texts_are_found() -> None:
    noisy, flipped = flip(tiny_texts(), 0.2, 0)
    problem = network(bag(), noisy, ["sample_weight"], steps=40, lr=1.0, weight_decay=1e-4)
    cleaned = [*islice(clean(problem, Unrolled(10)), 6)]
    assert auc(-cleaned[-1].weights, flipped).low > 0.8
    assert auc(sample_losses(trained(bag(), cleaned[0].state), noisy.train), flipped).low > 0.8


def test_the_explorer_of_suspects_shows_texts_and_takes_a_learning_rate() -> None:
    explorer = SuspectsExplorer(bag(), tiny_texts(), steps=20, lr=1.0, seconds=None)
    try:
        explorer.wait()
        assert "lr=1.0" in explorer.code()
        assert explorer.areas["learned weights"].low > 0.6
    finally:
        explorer.close()
    with pytest.raises(ValueError, match="^lr must be .*; got 3"):
        SuspectsExplorer(bag(), tiny_texts(), lr=3)


def test_suspect_texts_are_shown_by_their_words() -> None:
    texts, n = tiny_texts(), len(tiny_texts().train)
    weights = torch.ones(n)
    weights[5] = 0.25
    labels = texts.train.labels.clone()
    labels[5] = (labels[5] + 1) % 3
    cleaned = Cleaned(weights, torch.zeros(n), weights, 0.0, State({}, {}), 0)
    panel = plots.suspects_panel(texts, labels, cleaned)
    _, captions = panel.traces
    words, given, true = tokens().decode(texts.train.inputs[5]), int(texts.train.labels[5]), int(labels[5])
    assert captions["text"][0] == f"<b>{given} ({true})</b> {words[:40]}"
    assert captions["hovertext"][0] == f"training sample 5: was flipped from {true} to {given}, weight 0.25: {words}"
    assert len({(x, y) for x, y in zip(captions["x"], captions["y"], strict=True)}) == plots.SUSPECTS
    json.dumps(panel.traces, allow_nan=False)


def shown(explorer: Any) -> str:
    try:
        explorer.wait()
        said: str = explorer.status.value
        return said
    finally:
        explorer.close()


def test_explorers_of_models_take_texts() -> None:
    assert "texts right" in shown(MergeExplorer(small(0), small(1), tiny_texts(), epochs=0))
    quick: dict[str, Any] = {"steps": 5, "samples": 40, "lr": 0.05}
    assert "60 texts" in shown(GradientExplorer(small(), tiny_texts(), **quick))


def test_what_needs_numbers_refuses_texts() -> None:
    with pytest.raises(ValueError, match=r"^dataset must hold numbers, for the students are MLPs; got texts, tiny"):
        together.Problem(tiny_texts(), small())
    with pytest.raises(ValueError, match="^shift moves images"):
        network(bag(), tiny_texts(), ["shift"])
