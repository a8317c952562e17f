"""What is special to the merging explorer; what all explorers keep to is in explorer_contract.py."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from kit import measure, models, training
from kit.compress import align, average, ensemble
from kit.data import Dataset
from kit.explorers import MergeExplorer
from kit.explorers.merge import COARSE_FIRST, STOPS
from kit.plots.merge import LINES, ROWS
from tests.explorer_contract import picture
from tests.nets import same

Opened = Callable[[MergeExplorer], MergeExplorer]


def few(digits: Dataset) -> Dataset:
    return dataclasses.replace(digits, train=digits.train.first(300), validation=digits.validation.first(200))


@pytest.fixture(scope="module")
def pair(digits: Dataset) -> tuple[models.MLP, models.MLP]:
    nets = models.MLP((64, 16, 10), seed=1), models.MLP((64, 16, 10), seed=2)
    for seed, net in enumerate(nets):
        training.fit(net, digits, epochs=3, lr=1e-2, seed=seed)
    return nets


@pytest.fixture(scope="module")
def explorer(digits: Dataset, pair: Any, board_apart: None) -> Iterator[MergeExplorer]:
    made = MergeExplorer(pair[0], pair[1], few(digits), epochs=2)
    yield made
    made.close()


def test_each_point_is_the_average_really_measured(explorer: MergeExplorer, pair: Any, digits: Dataset) -> None:
    a, b = pair
    matched = align(b, a, dataset=digits).model
    for t, aligned, other in ((0.25, False, b), (0.25, True, matched), (1.0, True, b)):
        explorer.set(t=t, aligned=aligned)
        wanted = measure.accuracy(average([a, other], [1 - t, t]), explorer.dataset.validation)
        assert explorer.point.accuracy == wanted
        assert measure.accuracy(explorer.model, explorer.dataset.validation) == wanted
        assert f"{100 * t:.0f} % of b, {LINES[aligned]}" in explorer.in_words and wanted.percent in explorer.in_words
    assert explorer.ensemble.accuracy == measure.accuracy(ensemble(pair), explorer.dataset.validation)


def test_lines_barriers_and_the_taught_network_come_with_the_curves(explorer: MergeExplorer, pair: Any) -> None:
    explorer.reset()
    explorer.wait_curves()
    apart, matched = explorer.lines.values()
    assert [point.t for point in apart.points] == [point.t for point in matched.points] == list(STOPS)
    assert apart.points[0] is matched.points[0] and apart.points[-1] is matched.points[-1]
    assert matched.barrier.high < apart.barrier.low
    for name, line in zip(LINES, (apart, matched), strict=True):
        assert f"Barrier {name}: {line.barrier.value:.2f} nats" in explorer.in_words
    assert explorer.distilled is not None
    assert f"Network a taught by it for 2 epochs {explorer.distilled.accuracy.percent}" in explorer.in_words
    rows = {trace.name: list(trace.x) for trace in explorer.figures["beside"].data}
    assert list(rows) == list(ROWS) and all(len(x) == 1 for x in rows.values())
    axis = explorer.figures["beside"].layout.xaxis.range
    explorer.set(t=0.0).wait()
    assert explorer.figures["beside"].layout.xaxis.range == axis  # it does not jump under the moving average
    explorer.reset()
    assert rows["distilled"] == [100 * explorer.distilled.accuracy.value]
    table = explorer.table()
    assert sorted(set(table["curve"])) == sorted(LINES) and len(table) == 2 * len(STOPS)
    assert explorer.curves_note.value == "curves complete: 42 points"  # 21 + 19 inside + 2 epochs


def test_the_loss_is_shown_in_nats_and_a_click_goes_there(explorer: MergeExplorer) -> None:
    explorer.set(show="loss", t=0.5).wait()
    assert explorer.here.values == pytest.approx([0.5, *dataclasses.astuple(explorer.point.loss)[:3]])
    explorer._clicked("line", "matched", 0.75, 1.0)
    assert (explorer.t.value, explorer.aligned.value) == (0.75, True)
    explorer._clicked("line", "straight line", 0.25, 1.0)
    explorer._clicked("beside", "average", 0.25, 1.0)
    assert explorer.t.value == 0.75
    explorer.reset()


def test_coarse_points_come_first() -> None:
    assert sorted(COARSE_FIRST) == list(STOPS) and set(COARSE_FIRST[:3]) == {0, 0.5, 1}
    assert set(COARSE_FIRST[:5]) == {0, 0.25, 0.5, 0.75, 1}


def test_given_networks_are_not_changed(pair: Any, digits: Dataset, own_board: Any, opened: Opened) -> None:
    before = copy.deepcopy(pair)
    made = opened(MergeExplorer(pair[0], pair[1], few(digits), epochs=1))
    made.set(aligned=True)
    made.wait_curves()
    assert all(map(same, pair, before))
    assert made.code() == "MergeExplorer(a, b, dataset, t=0.5, epochs=1).set(aligned=True)"


def test_batch_statistics_are_renewed_unless_a_hand_says_otherwise(
    digits: Dataset, own_board: Any, opened: Opened
) -> None:
    data = few(digits)
    nets = [models.ResNet(widths=(4, 6), seed=seed) for seed in range(2)]
    for net in nets:
        training.fit(net, data, epochs=2, lr=5e-3)
    made = opened(MergeExplorer(nets[0], nets[1], data, epochs=0))
    assert made.renew.layout.display is None and made.renew.value
    assert made.point.accuracy == measure.accuracy(average(nets, dataset=data), data.validation)
    renewed = made.point
    made.set(renew=False)
    assert "batch statistics are averages, too, and do not fit" in made.in_words
    assert not torch.equal(made.point.losses, renewed.losses)
    made.set(t=1.0)
    assert "batch statistics" not in made.in_words
    made.wait_curves()
    assert made.distilled is None and "taught" not in made.in_words


def test_what_cannot_be_matched_is_said_and_the_plain_line_works(
    digits: Dataset, own_board: Any, opened: Opened
) -> None:
    nets = [models.MLP((64, 10), seed=seed) for seed in range(2)]
    made = opened(MergeExplorer(nets[0], nets[1], few(digits), epochs=0))
    made.set(aligned=True)
    assert "Units cannot be matched: no unit of MLP can be moved: it has no hidden units." in made.in_words
    assert "as they are" in made.in_words and made.aligned.layout.display == made.layer.layout.display == "none"
    made.wait_curves()
    assert [len(line.points) for line in made.lines.values()] == [len(STOPS)] and made.renew.layout.display == "none"
    picture(made)


def test_a_frozen_network_is_not_taught_and_the_words_say_why(digits: Dataset, own_board: Any, opened: Opened) -> None:
    nets = [models.MLP((64, 8, 10), seed=seed).requires_grad_(False) for seed in range(2)]
    made = opened(MergeExplorer(nets[0], nets[1], few(digits)))
    made.wait_curves()
    assert "No network could be distilled: model has no parameter to train" in made.in_words
    assert made.curves_note.value.startswith("curves complete: 40 ")
    assert "Network a only guesses: its interval holds chance" in made.in_words


def test_other_dtypes_are_walked(digits: Dataset, own_board: Any, opened: Opened) -> None:
    nets = [models.MLP((64, 8, 10), seed=seed).to(torch.bfloat16) for seed in range(2)]
    made = opened(MergeExplorer(nets[0], nets[1], few(digits), epochs=1))
    made.set(aligned=True)
    made.wait_curves()
    assert next(made.model.parameters()).dtype == torch.bfloat16
    picture(made)


def test_bad_networks_are_refused(digits: Dataset, pair: Any) -> None:
    a, b = pair
    broken = copy.deepcopy(a)
    broken.layers[1].bias.data[0] = float("nan")
    wrong: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((a, a, digits), {}, "b must be another network than a; got the same one twice"),
        ((a, models.MLP(), digits), {}, "b must match a: layers.0.weight"),
        ((a, broken, digits), {}, "must hold finite weights"),
        ((a, b, digits), {"t": 0.51}, "t must be one of the slider's 21 stops"),
        ((a, b, digits), {"epochs": -1}, "epochs must be 0 or more"),
        ((models.MLP((6, 3)), models.MLP((6, 3), seed=1), digits), {}, "takes samples of 6 numbers"),
    ]
    for given, settings, match in wrong:
        with pytest.raises(ValueError, match=match):
            MergeExplorer(*given, **settings)
    for other in (nn.Linear, "b", None):
        with pytest.raises(TypeError, match="b must be a torch.nn.Module"):
            MergeExplorer(a, other, digits)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dataset must be a Dataset"):
        MergeExplorer(a, b, digits.validation)  # type: ignore[arg-type]
