"""What is special to the compression explorer; what all explorers share is in `explorer_contract.py`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from kit import board, compress, data, inference, measure, models, training
from kit.compress import NOTHING, Recipe
from kit.data import Dataset
from kit.explorers import CompressionExplorer
from kit.explorers import compress as room
from kit.models import ConvNet
from kit.plots.curves import amount
from tests.hands import PATIENCE, recover, settle, words

pytestmark = pytest.mark.usefixtures("own_board")


@pytest.fixture(scope="module")
def shared(trained: ConvNet, digits: Dataset, board_apart: None) -> Iterator[CompressionExplorer]:
    with contextlib.closing(CompressionExplorer(trained, digits)) as explorer:
        explorer.wait(PATIENCE)
        yield explorer


@pytest.fixture
def explorer(shared: CompressionExplorer, own_board: Path) -> CompressionExplorer:
    """The explorer that the tests share, its controls and board as at the beginning."""
    shared.read_board()
    recover(shared)
    return shared


def test_the_answer_is_that_of_the_pipeline(explorer: CompressionExplorer, trained: ConvNet, digits: Dataset) -> None:
    settle(explorer, ratio=0.8, bits=3, energy=0.95)
    found = compress.pipeline(trained, digits, Recipe(ratio=0.8, bits=3, energy=0.95))
    assert explorer.step == found.steps[-1]
    said = words(explorer)
    assert f"File {amount(len(found.data), 'B')}, {found.times_smaller:.3g} times smaller than dense" in said
    assert found.steps[-1].accuracy.percent in said
    assert all(
        torch.equal(one, other)
        for one, other in zip(explorer.model.parameters(), found.model.parameters(), strict=True)
    )


def test_figures_show_every_step_the_codebook_and_the_error(explorer: CompressionExplorer) -> None:
    settle(explorer, ratio=0.9, bits=2, energy=0.9, layer="fc1.weight")
    explorer.wait_curves(PATIENCE)
    bars = explorer.figures["bytes"]
    assert list(bars.layout.yaxis.ticktext) == ["dense", "low rank", "pruned", "shared", "Huffman"]
    _, sticks = explorer.figures["codebook"].data
    assert len(sticks.x) // 3 == 4  # values of the first of two layers
    assert explorer.figures["error"].data[1].x[0] == pytest.approx(12.04, abs=0.01)
    settle(explorer, kind="off", huffman=False, energy=1.0)
    explorer.wait_curves(PATIENCE)
    assert list(bars.layout.yaxis.ticktext) == ["dense", "pruned"]
    assert set(explorer.figures["error"].data[0].text) == {"exact"}


def test_a_pin_carries_the_bytes_of_the_compressed_file(explorer: CompressionExplorer, digits: Dataset) -> None:
    explorer.pin()
    explorer.wait(PATIENCE)
    row = board.frame(digits.key).iloc[0]
    assert row["file_bytes"] == explorer.step.ledger.total == len(compress.encode(explorer.model).data)
    assert row["technique"] == "compression" and row["name"] == "ConvNet, 90 % pruned, shared, 5 bits, Huffman"
    assert row["nonzeros"] == measure.nonzeros(explorer.model)
    assert Recipe(**row["settings"]) == explorer.settings.recipe


def test_a_click_goes_to_a_point_of_a_curve_or_to_the_dense_model(explorer: CompressionExplorer) -> None:
    explorer.wait_curves(PATIENCE)
    plane = explorer.figures["plane"]._panel
    uniform = next(each for each in plane.curves if each.label == "uniform grid")
    at = room.RATIOS.index(0.7)  # curves go from the whole network on
    explorer._clicked("plane", "uniform grid", uniform.x[at], uniform.value[at])
    explorer.wait(PATIENCE)
    assert (explorer.kind.value, explorer.ratio.value) == ("uniform", 0.7)
    explorer._clicked("plane", "dense model", 600, 96)
    explorer.wait(PATIENCE)
    assert (explorer.kind.value, explorer.ratio.value, explorer.energy.value) == ("off", 0.0, 1.0)
    before = explorer._values()
    explorer._clicked("bytes", "values", 50, 1)
    explorer._clicked("plane", "", 50, 50)
    assert explorer._values() == before


def test_curves_have_fewer_ratios_where_all_would_take_too_long(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = models.MLP((64, 12, 10), seed=0)
    with contextlib.closing(CompressionExplorer(net, digits, seconds=3.0)) as explorer:
        explorer.wait(PATIENCE)
        assert len(explorer._ratios(Recipe())) == len(room.RATIOS)  # sure on any machine
        monkeypatch.setattr(room, "OPERATIONS", 1e12)
        explorer._took = 0.125
        assert explorer._ratios(Recipe()) == room.COARSE_FIRST[:8]  # 8 x 3 curves x 0.125 s
        explorer._took = 100.0
        assert len(explorer._ratios(Recipe())) == room.FEWEST
        assert "Sized for 3 s here: 5 of 19 ratios a curve" in explorer._words(explorer._latest())
        explorer._seconds = None
        assert len(explorer._ratios(Recipe())) == len(room.RATIOS)


def test_a_recipe_that_fails_leaves_a_gap_in_its_curve(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    net = models.MLP((64, 12, 10), seed=0)
    with contextlib.closing(CompressionExplorer(net, digits)) as explorer:
        explorer.wait(PATIENCE)
        step = explorer._compression.step

        def fails(recipe: Recipe, **how: object) -> compress.Step:
            if recipe.kind == "uniform":
                raise ValueError("no grid.")
            return step(recipe, **how)  # type: ignore[arg-type]

        monkeypatch.setattr(explorer._compression, "step", fails)
        explorer.set(bits=4)
        explorer.wait_curves(PATIENCE)
        assert "complete" in explorer.curves_note.value
        lengths = {each.label: len(each.x) for each in explorer.figures["plane"]._panel.curves[:3]}
        assert lengths == {"shared": len(room.RATIOS), "uniform grid": 0, "pruning alone": len(room.RATIOS)}
        with pytest.raises(ValueError, match="no grid"):
            explorer.set(kind="uniform").wait(PATIENCE)


def test_of_a_large_model_the_first_words_come_before_its_file(
    trained: ConvNet, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "SMALL_MODEL", 1)
    monkeypatch.setattr(training, "batch_for", lambda *_, **__: 100)
    said: list[str] = []
    show = CompressionExplorer._show

    def noted(explorer: CompressionExplorer, answer: room.Answer) -> None:
        show(explorer, answer)
        said.append(explorer.status.value)
        assert bool(explorer.here.values) == bool(answer.step.ledger.total)  # no place in the plane without a size

    monkeypatch.setattr(CompressionExplorer, "_show", noted)
    with contextlib.closing(CompressionExplorer(trained, digits)) as explorer:
        explorer.wait(PATIENCE)
        explorer.stop()
        assert "The file is being written." in said[0] and "so far" in said[0]
        assert "The file is being written." not in said[-1] and "times smaller" in said[-1]
        model = explorer.model
        assert model is not explorer._model(explorer._latest())  # a copy: tensors are shared inside
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        assert any(parameter.any() for parameter in explorer.model.parameters())


@pytest.mark.parametrize("make", [models.lenet_300_100, models.LeNet5])
def test_it_works_on_mnist(make: type[nn.Module]) -> None:
    whole = data.mnist()
    few = dataclasses.replace(whole, train=whole.train.first(64), validation=whole.validation.first(64))
    with contextlib.closing(CompressionExplorer(make(), few)) as explorer:
        explorer.wait(PATIENCE)
        assert explorer.step.ledger.total < explorer._compression.ledger(NOTHING).total / 20
        explorer.stop()


def test_a_dense_model_that_guesses_is_said_to(explorer: CompressionExplorer, digits: Dataset) -> None:
    explorer.wait_curves(PATIENCE)
    assert "guesses" not in words(explorer) and " 0 %" not in words(explorer)  # parts of no size are not listed
    labels = digits.validation.labels
    split = dataclasses.replace(digits.validation, labels=torch.where(labels > 0, 1, 0))
    few = dataclasses.replace(digits, validation=split)
    with contextlib.closing(CompressionExplorer(models.MLP((64, 12, 10), seed=0), few)) as untrained:
        untrained.wait_curves(PATIENCE)
        share = 100 * float((labels > 0).double().mean())  # naming the most frequent class
        assert f"The dense model only guesses: its interval holds chance ({share:.0f} %)" in words(untrained)
        (level,) = untrained.figures["plane"].layout.shapes
        assert level.y0 == pytest.approx(share)


def test_batch_norm_stays_and_nothing_to_compress_is_refused(digits: Dataset) -> None:
    with contextlib.closing(CompressionExplorer(models.ResNet(), digits)) as explorer:
        explorer.wait(PATIENCE)
        back = compress.decode(compress.encode(explorer.model).data)
        assert all(torch.equal(tensor, back[name]) for name, tensor in explorer.model.state_dict().items())
        explorer.stop()
    with pytest.raises(ValueError, match="has nothing to prune"):
        CompressionExplorer(nn.Sequential(nn.Flatten(), nn.LayerNorm(64)), digits)
    with pytest.raises(ValueError, match="ratio must be one of"):
        CompressionExplorer(models.MLP((64, 12, 10)), digits, ratio=0.51)
