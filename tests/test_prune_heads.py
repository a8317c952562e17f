"""Heads of an attention: out as wholes, scored by a mask of each, measured without each; and what else ids change."""

from __future__ import annotations

import copy
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import files, measure, models, prune, training
from kit.data import Dataset
from tests.texts import LENGTH, WORDS, ordered

Net = Any


@pytest.fixture(scope="module")
def letters() -> Dataset:
    return ordered()


def transformer(*, width: int = 16, heads: int = 4, seed: int = 1, **sizes: Any) -> Net:
    """Each head's part of the answer is made large, so that taking out a wrong one would show."""
    net = models.Transformer(WORDS, LENGTH, 2, width=width, heads=heads, seed=seed, **sizes)
    with torch.no_grad():
        net.tokens.weight.mul_(50)
    return net.eval()


def masked(net: Net, masks: dict[str, Tensor]) -> Net:
    """A copy whose heads are multiplied by these numbers [heads], written with the formula of attention anew."""
    probe = copy.deepcopy(net)
    for name, factors in masks.items():
        attention = probe.get_submodule(name)

        def forward(x: Tensor, there: Tensor, attention: Any = attention, factors: Tensor = factors) -> Tensor:
            given = attention.weights(x, there) @ attention.split(attention.value(x))  # [n, heads, length, head_width]
            return attention.out((given * factors[:, None, None]).transpose(1, 2).flatten(2))

        attention.forward = forward
    return probe


@pytest.mark.parametrize("heads", [2, 4, 8])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75, 0.9])
def test_whole_heads_go_and_the_others_answer_as_before(letters: Dataset, heads: int, ratio: float) -> None:
    net = transformer(heads=heads)
    thinned = prune.remove_channels(net, ratio=ratio, dataset=letters)
    size, masks = 16 // heads, {}
    for name in ("blocks.0.attention", "blocks.1.attention"):
        kept = thinned.kept[f"{name}.query"]
        assert kept == thinned.kept[f"{name}.key"] == thinned.kept[f"{name}.value"]
        stay = sorted({place // size for place in kept})
        assert kept == tuple(head * size + place for head in stay for place in range(size))
        assert len(stay) == max(heads - round(ratio * heads), 1)
        masks[name] = torch.zeros(heads).index_fill(0, torch.tensor(stay), 1)
    x = letters.test.inputs
    middle = {name: stay for name, stay in thinned.kept.items() if name.endswith("fc1")}
    assert [len(stay) for stay in middle.values()] == [64 - round(ratio * 64)] * 2
    silent = masked(net, masks)
    for name, units in middle.items():
        factors = torch.zeros(64).index_fill(0, torch.tensor(units), 1)
        silent.get_submodule(name.replace("fc1", "fc2")).register_forward_pre_hook(
            lambda _, arguments, factors=factors: arguments[0] * factors
        )
    got, wanted = training.predict(thinned.model, x), training.predict(silent, x)
    assert torch.allclose(got, wanted, atol=1e-5)
    assert not torch.allclose(got, training.predict(net, x), atol=1e-3)
    assert [name for name, _ in thinned.skipped] == ["blocks.0.attention.out"]  # into the sum, which is normalised
    floored = ["blocks.0.attention.query", "blocks.1.attention.query"] if round(ratio * heads) == heads else []
    assert list(thinned.floored) == floored


def test_a_share_too_small_for_a_head_takes_none_and_says_nothing(letters: Dataset) -> None:
    thinned = prune.remove_channels(transformer(heads=4), ratio=0.1, dataset=letters)
    assert len(thinned.kept["blocks.0.attention.query"]) == 16 and len(thinned.kept["blocks.0.fc1"]) == 58
    assert [name for name, _ in thinned.skipped] == ["blocks.0.attention.out"]


def test_the_lowest_heads_go_by_the_mean_square_of_all_their_weights(letters: Dataset) -> None:
    net = transformer(heads=4)
    attention = net.blocks[0].attention
    rows = [layer.weight.detach() for layer in (attention.query, attention.key, attention.value)]
    squares = sum((each**2).sum(1) for each in (*rows, attention.out.weight.detach().T)).view(4, 4).mean(1)
    kept = prune.remove_channels(net, ratio=0.5, dataset=letters).kept["blocks.0.attention.query"]
    assert sorted({place // 4 for place in kept}) == sorted(squares.argsort()[2:].tolist())
    with torch.no_grad():  # ranked with all others, a head without weights goes first
        for layer in (attention.query, attention.key, attention.value):
            layer.weight[4:8] = 0
        attention.out.weight[:, 4:8] = 0
    everywhere = prune.remove_channels(net, ratio=1.4 / (2 * 4 + 2 * 64), dataset=letters, scope="global").kept
    assert everywhere["blocks.0.attention.query"] == (*range(4), *range(8, 16))
    assert {len(kept) for name, kept in everywhere.items() if not name.startswith("blocks.0.attention")} == {16, 64}


def test_heads_are_found_where_the_first_texts_have_one_token(letters: Dataset) -> None:
    """There attention gives back what it gets, so that any positions could go: later texts are longer."""
    inputs = letters.train.inputs.clone()
    inputs[:50, 1:] = 0
    short = Dataset(
        "short", type(letters.train)(inputs, letters.train.labels), letters.validation, letters.test,
        letters.class_names, tokens=letters.tokens,
    )  # fmt: skip
    kept = prune.remove_channels(transformer(), ratio=0.5, dataset=short).kept["blocks.0.attention.query"]
    assert kept == prune.remove_channels(transformer(), ratio=0.5, dataset=letters).kept["blocks.0.attention.query"]


def test_one_head_cannot_go_and_the_refusal_says_so(letters: Dataset) -> None:
    net, query = transformer(heads=1), "blocks.{}.attention.query"
    thinned = prune.remove_channels(net, ratio=0.5, dataset=letters)
    assert dict(thinned.skipped).keys() == {query.format(0), query.format(1), "blocks.0.attention.out"}
    assert {dict(thinned.skipped)[query.format(at)] for at in (0, 1)} == {
        "Its channels make one head, which cannot go alone."
    }
    with pytest.raises(prune.Untraceable, match=r"channels of Transformer make one head, which cannot go alone\. Its"):
        prune.channels(net, ratio={query.format(1): 0.5}, dataset=letters)
    with pytest.raises(ValueError, match="Transformer has no heads; it needs an attention of two heads or more"):
        prune.head_scores(net, letters)


def test_the_width_of_a_transformer_stays_without_a_warning_and_what_is_not_usual_is_said(letters: Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune.channels(transformer(), ratio=0.5, dataset=letters)
    with pytest.warns(prune.LeftAloneWarning, match="^all channels of blocks") as said:  # one head of each block
        prune.channels(transformer(heads=1), ratio=0.5, dataset=letters)
    assert ["one head" in str(each.message) for each in said] == [True, True]


def test_scores_of_heads_are_slopes_along_explicit_masks(letters: Dataset) -> None:
    net = transformer(layers=1)
    few = Dataset(
        "few", letters.train.first(70), letters.validation, letters.test, letters.class_names, tokens=letters.tokens
    )
    wanted, by_weights = torch.zeros(4), torch.zeros(4)
    for x, y in zip(few.train.inputs, few.train.labels, strict=True):  # over two batches of the kit's
        mask = torch.ones(4, requires_grad=True)
        F.cross_entropy(masked(net, {"blocks.0.attention": mask})(x[None]), y[None]).backward()
        wanted += mask.grad.abs() / 70  # type: ignore[union-attr]
        weight = net.blocks[0].attention.out.weight
        (slope,) = torch.autograd.grad(F.cross_entropy(net(x[None]), y[None]), weight)
        by_weights += (weight * slope).detach().sum(0).view(4, 4).sum(1).abs() / 70  # a mask scales all its columns
    (scores,) = prune.head_scores(net, few).values()
    assert torch.allclose(scores, wanted, rtol=1e-4) and torch.allclose(scores, by_weights, rtol=1e-4)
    assert float(scores.min()) > 0

    loss = lambda factor: F.cross_entropy(  # noqa: E731  (of one sample, in double precision)
        masked(net.double(), {"blocks.0.attention": torch.tensor([1.0, factor, 1.0, 1.0], dtype=torch.float64)})(
            x[None]
        ),
        y[None],
    )
    with torch.no_grad():
        difference = float(loss(1 + 1e-6) - loss(1 - 1e-6)) / 2e-6
    one = Dataset(
        "one", type(few.train)(x[None], y[None]), few.validation, few.test, few.class_names, tokens=few.tokens
    )
    assert float(prune.head_scores(net, one)["blocks.0.attention.query"][1]) == pytest.approx(abs(difference), rel=1e-4)


def test_the_accuracy_without_each_head_is_that_of_the_formula(letters: Dataset) -> None:
    net, x, y = transformer(), letters.validation.inputs, letters.validation.labels
    found = prune.head_accuracies(net, letters)
    assert list(found) == ["blocks.0.attention.query", "blocks.1.attention.query"]
    for name, estimates in found.items():
        for head, estimate in enumerate(estimates):
            factors = torch.ones(4).index_fill(0, torch.tensor([head]), 0)
            right = masked(net, {name.removesuffix(".query"): factors})(x).argmax(1) == y
            assert (estimate.value, estimate.n) == (pytest.approx(float(right.float().mean())), 64)
            assert estimate.low < estimate.value < estimate.high


def test_a_head_that_gives_nothing_scores_nothing(letters: Dataset) -> None:
    net = transformer()
    with torch.no_grad():
        net.blocks[1].attention.out.weight[:, 8:12] = 0
    scores = prune.head_scores(net, letters)["blocks.1.attention.query"]
    assert float(scores[2]) == 0 < float(scores[[0, 1, 3]].min())


def test_heads_are_asked_only_where_there_are_some(letters: Dataset, digits: Dataset) -> None:
    for ask in (prune.head_scores, prune.head_accuracies):
        with pytest.raises(ValueError, match="ConvNet has no heads; it needs an attention of two heads or more"):
            ask(models.ConvNet(), digits)
        stop = threading.Event()
        stop.set()
        with pytest.raises(training.Cancelled, match="cancelled"):
            ask(transformer(), letters, cancel=stop)


def test_rows_that_are_no_samples_are_refused(letters: Dataset) -> None:
    net = transformer()
    for block in net.blocks:
        out = block.attention.out
        block.attention.out = nn.Sequential(nn.Flatten(0, 1), out, nn.Unflatten(0, (-1, LENGTH)))
    with pytest.raises(
        ValueError, match=r"blocks\.0\.attention\.out\.1 must take \[n, \.\.\., width\], a sample a row"
    ):
        prune.head_scores(net, letters)


def test_a_model_with_heads_gone_comes_back_from_its_file(letters: Dataset, tmp_path: Path) -> None:
    net = transformer()
    thinned = prune.channels(net, ratio=0.5, dataset=letters)
    files.write(thinned, path := tmp_path / "thinned.safetensors", sparse=False)
    back: Net = prune.load_smaller(transformer(seed=9), path)
    x = letters.test.inputs
    assert torch.equal(training.predict(back, x), training.predict(thinned, x))
    assert back.blocks[0].attention.query.weight.shape == (8, 16) and back.blocks[0].attention.out.in_features == 8
    training.fit(thinned, letters, epochs=1, seed=0)  # and it still learns


def test_what_a_transformer_costs_is_a_formula(letters: Dataset) -> None:
    net = transformer(width=16, heads=4, layers=3, hidden=24)
    n, d, h = LENGTH, 16, 24
    block = 2 * (4 * n * d * d + 2 * n * n * d + 2 * n * d * h)  # projections; scores and mixing; the two layers
    profile = measure.profile(net, letters.validation)
    assert profile.flops == 3 * block + 2 * d * 2
    parameters = WORDS * d + n * d + 3 * (4 * (d * d + d) + 4 * d + 2 * d * h + h + d) + 2 * d + 2 * d + 2
    assert profile.parameters == parameters and profile.dense_bytes == 4 * parameters
    assert profile.latency.value > 0 and profile.file_bytes > 0
    thinned = prune.remove_channels(net, ratio=0.5, dataset=letters).model
    half = 2 * (4 * n * d * d // 2 + n * n * d + n * d * h)  # two of four heads, twelve of 24 units
    assert measure.flops(thinned, letters.validation.inputs) == 3 * half + 2 * d * 2
    longer = torch.cat([letters.validation.inputs[:1, :4]])  # half the tokens
    assert measure.flops(net, longer) == 3 * 2 * (4 * 4 * d * d + 2 * 16 * d + 2 * 4 * d * h) + 2 * d * 2


def test_embeddings_are_looked_up_and_stay(letters: Dataset) -> None:
    net = transformer()
    assert set(prune.prunable(net)) == {
        *(f"blocks.{at}.attention.{part}.weight" for at in range(2) for part in ("query", "key", "value", "out")),
        *(f"blocks.{at}.{part}.weight" for at in range(2) for part in ("fc1", "fc2")),
        "head.weight",
    }
    assert set(prune.prunable(models.BagOfWords(WORDS))) == {"head.weight"}
    table: Net = prune.weights(net, ratio={"tokens.weight": 0.5})
    assert int((table.tokens.weight == 0).sum()) == WORDS * 16 // 2
    rare = copy.deepcopy(net)
    rare.tokens = nn.Embedding(2 * WORDS, 16)  # rows of words that no text has: bytes, no FLOPs
    few = letters.validation.inputs
    assert measure.flops(rare, few) == measure.flops(net, few)
    assert measure.dense_bytes(rare) - measure.dense_bytes(net) == 4 * WORDS * 16


@pytest.mark.parametrize("build", [transformer, lambda: models.BagOfWords(WORDS, seed=1)], ids=["transformer", "bag"])
def test_taylor_scores_on_ids_are_autograds(letters: Dataset, build: Any) -> None:
    net = build()
    loss = F.cross_entropy(net(letters.train.inputs), letters.train.labels)
    names, weights = zip(*prune.prunable(net).items(), strict=True)
    wanted = dict(zip(names, torch.autograd.grad(loss, weights), strict=True))
    for name, score in prune.score_weights(net, "taylor", dataset=letters).items():
        assert torch.allclose(score, (wanted[name] * dict(net.named_parameters())[name]).abs().detach(), atol=1e-7)


def test_a_scan_and_a_sweep_take_texts(letters: Dataset) -> None:
    net = transformer(layers=1)
    scan = prune.scan(net, letters, ratios=(0.0, 0.5), importance="taylor")
    for name in ("blocks.0.attention.out.weight", "head.weight"):
        pruned = prune.weights(net, ratio={name: 0.5}, importance="taylor", dataset=letters)
        assert scan.accuracy[name][1].value == measure.accuracy(pruned, letters.validation).value
    sweep = prune.Sweep(net, letters)
    point = sweep.point(prune.PruningMethod("channels", scope="layer"), 0.5)
    thinned = prune.remove_channels(net, ratio=0.5, dataset=letters).model
    assert point.sizes.parameters == measure.parameters(thinned) < sweep.dense.parameters
    assert point.accuracy.value == pytest.approx(float(np.mean(predicted(thinned, letters))))


def predicted(net: nn.Module, letters: Dataset) -> np.ndarray:
    right = training.predict(net, letters.validation.inputs).argmax(1) == letters.validation.labels
    return right.numpy()
