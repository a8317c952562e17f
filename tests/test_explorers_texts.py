"""Explorers on texts and a transformer: heads in place of filters, and words that fit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit import compress, measure, models, prune, training
from kit.data import Dataset
from kit.explorers import (
    CompressionExplorer,
    IntervalExplorer,
    MergeExplorer,
    PruningExplorer,
    SensitivityExplorer,
)
from kit.prune import PruningMethod
from tests.hands import PATIENCE, words
from tests.texts import LENGTH, WORDS, ordered

pytestmark = pytest.mark.usefixtures("own_board")


@pytest.fixture(scope="module")
def letters() -> Dataset:
    return ordered()


def transformer(seed: int = 1) -> models.Transformer:
    return models.Transformer(WORDS, LENGTH, 2, width=16, heads=4, seed=seed)


@contextlib.contextmanager
def opened(explorer: Any) -> Iterator[Any]:
    with contextlib.closing(explorer):
        explorer.wait(PATIENCE)
        assert "images" not in words(explorer)
        yield explorer


def test_heads_stand_in_place_of_filters_and_go(letters: Dataset, own_board: Path) -> None:
    net = transformer()
    with opened(PruningExplorer(net, letters, ratio=0.5)) as explorer:
        tiles, gone = explorer.figures["filters"].data
        assert [len(row) for row in tiles.z] == [4, 4] and not gone.x
        dense = max(float(max(row)) for row in tiles.z)
        explorer.set(what="channels", scope="layer", ratio=0.5)
        explorer.wait(PATIENCE)
        thinned = prune.remove_channels(net, ratio=0.5, dataset=letters)
        tiles, gone = explorer.figures["filters"].data
        stay = [sorted({at // 4 for at in thinned.kept[f"blocks.{block}.attention.value"]}) for block in range(2)]
        assert [[head for head in range(4) if row[head]] for row in tiles.z] == stay
        assert sorted(zip(gone.y, gone.x, strict=True)) == [
            (block, head) for block in range(2) for head in range(4) if head not in stay[block]
        ]
        assert (
            tiles.zmax == pytest.approx(dense, rel=0.5)
            and "head" in explorer.figures["filters"].layout.xaxis.title.text
        )
        assert explorer.profile.flops == measure.flops(thinned.model, letters.validation.inputs)
        assert explorer.point.accuracy.value == measure.accuracy(thinned.model, letters.validation).value
        assert "texts" in words(explorer) and "50 % of the channels removed" in words(explorer)
        assert "blocks.0.attention.out (its channels cannot be followed through norm" in words(explorer)
        explorer.set(ratio=0.95)
        explorer.wait(PATIENCE)
        assert len(explorer.figures["filters"].data[1].x) == 6  # one head stays in each layer
        assert "One channel was kept in blocks.0.attention.query, blocks.1.attention.query" in words(explorer)
        explorer.set(ratio=0.5, epochs=1)  # what is left still learns
        explorer.wait(PATIENCE)
        assert explorer.points(PruningMethod("channels", scope="layer", epochs=1))


def test_a_bag_of_words_has_no_heads_and_its_first_weight_is_shown(letters: Dataset, own_board: Path) -> None:
    with opened(PruningExplorer(models.BagOfWords(WORDS), letters, ratio=0.5)) as explorer:
        tiles, _ = explorer.figures["filters"].data
        assert explorer.figures["filters"].layout.title.text.startswith("head: 2 filters") and len(tiles.z[0]) == 32


def test_layers_of_an_attention_have_curves_and_an_allocation(letters: Dataset) -> None:
    net = transformer()
    with opened(SensitivityExplorer(net, letters, ratio=0.5)) as explorer:
        assert set(explorer.sensitivity.accuracy) == set(explorer.allocation) == set(prune.prunable(net))
        pruned = prune.weights(net, ratio=explorer.allocation)
        assert explorer.accuracies["allocation"].value == measure.accuracy(pruned, letters.validation).value


def test_tables_of_embeddings_are_compressed_and_shown(letters: Dataset, own_board: Path) -> None:
    net = transformer()
    with opened(CompressionExplorer(net, letters, ratio=0.0)) as explorer:
        explorer.set(bits=2, layer="tokens.weight")
        explorer.wait(PATIENCE)
        before, after = explorer.figures["codebook"].data
        assert sum(before.y) == WORDS * 16 and explorer.figures["codebook"].layout.title.text.startswith(
            "tokens: 4 values"
        )
        assert sum(height or 0 for height in after.y) == WORDS * 16
        made = compress.share(net, 4, biases=True)
        assert explorer.step.accuracy.value == measure.accuracy(made, letters.validation).value


def test_readings_are_of_texts(letters: Dataset) -> None:
    net = transformer()
    with opened(IntervalExplorer(net, letters)) as explorer:
        assert explorer.truth == pytest.approx(measure.accuracy(net, letters.validation).value)
        assert "validation texts" in words(explorer)


def test_heads_are_matched_and_shown(letters: Dataset, own_board: Path) -> None:
    first, second = transformer(1), transformer(2)
    with opened(MergeExplorer(first, second, letters, epochs=1)) as explorer:
        assert "blocks.0.attention.query" in explorer.layer.options or "blocks.0.attention.query" in dict(
            explorer.layer.options
        )
        explorer.set(layer="blocks.0.attention.query")
        explorer.wait(PATIENCE)
        picture = explorer.figures["pairs"].data[0].z
        assert (len(picture), len(picture[0])) == (3 * 8 + 2, 4 * 9 - 1)
    assert training.predict(first, letters.test.inputs).isfinite().all()
