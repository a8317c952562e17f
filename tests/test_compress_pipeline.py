from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kit import compress, files, inference, measure, models, prune, training
from kit.compress import NOTHING, Compression, Recipe, pipeline
from kit.compress.pipeline import NOT_WRITTEN
from kit.data import Dataset
from kit.models import ConvNet
from tests.strangers import STRANGERS

ALL = Recipe(energy=0.9, ratio=0.8, kind="shared", bits=4)


@pytest.fixture(scope="module")
def shared(trained: ConvNet, digits: Dataset) -> Compression:
    return Compression(trained, digits)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def correct(model: nn.Module, dataset: Dataset) -> int:
    with torch.no_grad():
        return int((model.eval()(dataset.validation.inputs).argmax(1) == dataset.validation.labels).sum())


def test_each_step_is_what_its_parts_do_one_after_the_other(trained: ConvNet, digits: Dataset) -> None:
    before = copy.deepcopy(trained.state_dict())
    found = pipeline(trained, digits, ALL)
    low = compress.low_rank(trained, energy=0.9).model
    pruned = prune.weights(low, ratio=0.8)
    last = compress.share(pruned, 16, biases=True)
    assert [step.name for step in found.steps] == ["dense", "low rank", "pruned", "shared", "Huffman"]
    assert equal(found.model.state_dict(), last.state_dict())
    for step, model in zip(found.steps, (trained, low, pruned, last, last), strict=True):
        assert step.whole and step.nonfinite == 0
        assert step.accuracy == measure.Estimate.from_counts(correct(model, digits), len(digits.validation))
    assert equal(trained.state_dict(), before)


def test_bytes_are_those_of_the_files_and_each_step_takes_fewer(trained: ConvNet, digits: Dataset) -> None:
    found = pipeline(trained, digits, ALL)
    totals = [step.ledger.total for step in found.steps]
    assert totals == sorted(totals, reverse=True) and len(set(totals)) == len(totals)
    assert totals[0] == len(files.encode(trained, sparse=False)) and totals[-1] == len(found.data)
    assert found.steps[0].ledger.raw == 4 * sum(weight.numel() for weight in trained.parameters())
    assert found.times_smaller == pytest.approx(totals[0] / totals[-1])
    assert equal(compress.decode(found.data), found.model.state_dict())


@pytest.mark.parametrize(("kind", "most"), [("shared", 8), ("uniform", 7)])  # a grid has as many levels up as down
def test_the_zeros_stay_and_each_layer_has_few_values(shared: Compression, kind: Any, most: int) -> None:
    recipe = Recipe(ratio=0.9, kind=kind, bits=3, epochs=1, lr=1e-3)
    pruned = shared.model(dataclasses.replace(recipe, kind="off"))
    for name, weight in prune.prunable(shared.model(recipe)).items():
        zeros = prune.prunable(pruned)[name] == 0
        assert bool((weight[zeros] == 0).all())
        assert len(weight.unique()) <= most + 1
    assert not any(equal(shared.model(recipe).state_dict(), other.state_dict()) for other in (pruned, shared.dense))


def test_rounds_prune_by_the_cubic_schedule_and_train_after_each(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, seen = models.MLP((64, 12, 10), seed=0), list[tuple[float, int, int, float]]()
    tune = prune.fine_tune

    def noted(model: nn.Module, dataset: Dataset, **settings: Any) -> nn.Module:
        weights = list(prune.prunable(model).values())
        zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
        seen.append((zeros, settings["epochs"], settings["seed"], settings["weight_decay"]))
        return tune(model, dataset, **settings)

    monkeypatch.setattr(prune, "fine_tune", noted)
    Compression(net, digits).model(Recipe(ratio=0.9, kind="off", epochs=1, rounds=3, seed=5, weight_decay=0.01))
    ratios, epochs, seeds, decays = zip(*seen, strict=True)
    assert ratios == pytest.approx(prune.schedule("cubic", 0.9, 3), abs=1e-3)
    assert (epochs, seeds, decays) == ((1, 1, 1), (5, 6, 7), (0.01, 0.01, 0.01))


def test_what_comes_before_a_change_is_not_done_again(
    trained: ConvNet, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    compression, calls = Compression(trained, digits), list[str]()

    def counted(step: str, make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        def made(*given: Any) -> nn.Module:
            calls.append(step)
            return make(*given)

        return made

    for step, make in list(pipeline.__globals__["_STEPS"].items()):
        monkeypatch.setitem(pipeline.__globals__["_STEPS"], step, counted(step, make))
    compression.step(Recipe(ratio=0.9, bits=5))
    assert calls == ["pruned", "shared"]
    for change in ({"bits": 4}, {"huffman": False}, {"bits": 5}, {"kind": "off"}):
        compression.step(dataclasses.replace(Recipe(ratio=0.9, bits=5), **change))
    assert calls == ["pruned", "shared", "shared"]
    compression.step(Recipe(ratio=0.9, bits=5, seed=3, lr=0.1))  # nothing is trained: the same recipe
    assert calls == ["pruned", "shared", "shared"]
    assert compression.known(Recipe(ratio=0.9, bits=5, seed=8)) is not None


def test_models_are_kept_up_to_a_number_of_bytes(
    trained: ConvNet, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pipeline.__globals__, "MODEL_BYTES", 1)
    compression = Compression(trained, digits)
    first = compression.model(Recipe(ratio=0.5))
    for ratio in (0.6, 0.7, 0.8):
        compression.model(Recipe(ratio=ratio))
    assert len(compression._models) == 2
    again = compression.model(Recipe(ratio=0.5))
    assert again is not first and equal(again.state_dict(), first.state_dict())


def test_slices_come_one_by_one_and_enough_is_enough(trained: ConvNet, digits: Dataset) -> None:
    compression, parts = Compression(trained, digits, slice_size=100), list[compress.Step]()
    short = compression.step(Recipe(), enough=150)
    assert short.accuracy.n == 200 and not short.whole and not parts
    whole = compression.step(Recipe(), on_slice=parts.append)
    assert [part.accuracy.n for part in parts] == [*range(100, len(digits.validation), 100)]
    assert whole.whole and whole.accuracy.n == len(digits.validation)
    assert compression.step(Recipe()) is whole


def test_a_recipe_says_itself_and_its_steps() -> None:
    assert str(ALL) == "low rank 90 %, 80 % pruned, shared, 4 bits, Huffman" and str(NOTHING) == "dense"
    assert str(Recipe(epochs=2, seed=3)) == "90 % pruned, shared, 5 bits, Huffman, 2 epochs a step, seed 3"
    assert [name for name, _ in NOTHING.steps] == ["dense"]
    assert Recipe(ratio=0, kind="off", huffman=False, bits=7, epochs=3, seed=9).key == NOTHING
    tuned = Recipe(epochs=1, seed=4, rounds=2)
    assert tuned.key == tuned and tuned.steps[-1][1] == tuned
    for _, step in tuned.steps:
        assert step.steps[-1][1] == step == step.key  # a step is a recipe of its own


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"energy": 0}, "energy, the share to keep, must lie in (0, 1]; got 0."),
        ({"energy": 1.1}, "energy, the share to keep, must lie in [0, 1]; got 1.1."),
        ({"ratio": 1}, "ratio, the share to remove, must lie in [0, 1); got 1."),
        ({"kind": "both"}, "kind must be one of shared, uniform, off; got 'both'."),
        ({"bits": 1}, "bits must lie in 2 .. 8; got 1."),
        ({"huffman": 1}, "huffman must be a bool; got 1."),
        ({"epochs": -1}, "epochs must be 0 or more; got -1."),
        ({"rounds": 0}, "rounds must be 1 or more; got 0."),
        ({"seed": 0.5}, "seed must be a whole number; got 0.5."),
        ({"lr": 0}, "lr must be above 0; got 0."),
        ({"weight_decay": -1}, "weight_decay must be 0 or more; got -1."),
    ],
)
def test_recipes_that_no_step_can_follow_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(sentence)}$"):
        Recipe(**wrong)


def test_models_and_recipes_that_cannot_be_compressed_are_refused(trained: ConvNet, digits: Dataset) -> None:
    with pytest.raises(ValueError, match=r"^model: Sequential has nothing to prune"):
        pipeline(nn.Sequential(nn.Flatten(), nn.LayerNorm(64)), digits, Recipe())
    with pytest.raises(ValueError, match=r"^dataset: the model cannot take samples of shape"):
        Compression(nn.Linear(3, 10), digits)
    with pytest.raises(TypeError, match=r"^recipe must be a Recipe; got 0\.9"):
        pipeline(trained, digits, 0.9)  # type: ignore[arg-type]
    cancel = Event()
    cancel.set()
    with pytest.raises(training.Cancelled):
        pipeline(trained, digits, Recipe(epochs=1), cancel=cancel)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["shared", "uniform"])
def test_other_dtypes_come_back_equal(digits: Dataset, dtype: torch.dtype, kind: Any) -> None:
    net = models.MLP((64, 12, 10), seed=0).to(dtype)
    found = pipeline(net, digits, Recipe(ratio=0.5, kind=kind, bits=4))
    back = compress.decode(found.data)
    for name, tensor in found.model.state_dict().items():
        assert tensor.dtype == dtype == back[name].dtype and torch.equal(tensor, back[name])


def test_batch_norm_is_kept_as_it_is(digits: Dataset) -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).eval()
    found = pipeline(net, digits, Recipe(ratio=0.5))
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(found.model.state_dict()[name], net.state_dict()[name])
    assert np.isfinite(found.steps[-1].accuracy.value) and not found.model.training


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers(name: str, digits: Dataset) -> None:
    few = dataclasses.replace(digits, train=digits.train.first(16), validation=digits.validation.first(16))
    found = pipeline(STRANGERS[name](), few, Recipe(energy=0.7, ratio=0.5, bits=3, epochs=1))
    back = compress.decode(found.data)
    assert all(torch.equal(tensor, back[key]) for key, tensor in found.model.state_dict().items())
    assert found.steps[-1].ledger.total < found.steps[0].ledger.total


def test_of_a_large_model_words_come_before_the_file_and_memory_is_shared(
    trained: ConvNet, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(ratio=0.7, kind="uniform", bits=4)
    expected = {each: Compression(trained, digits).step(each) for _, each in recipe.steps}
    monkeypatch.setattr(inference, "SMALL_MODEL", 1)
    compression, parts = Compression(trained, digits, slice_size=100), list[compress.Step]()
    assert compression.step(recipe, on_slice=parts.append) == expected[recipe]
    assert [part.ledger == NOT_WRITTEN for part in parts] == [True] + [False] * (len(parts) - 1)
    for _, each in recipe.steps:
        assert compression.step(each) == expected[each]
        assert compression.ledger(each) == compression.encoded(each).ledger
    pruned = compression.model(Recipe(ratio=0.7, kind="off"))
    own, dense = (dict(each.named_parameters()) for each in (pruned, compression.dense))
    assert compression.model(Recipe(ratio=0.7, kind="off")) is pruned
    assert {name for name in own if own[name] is dense[name]} == set(own) - set(prune.prunable(trained))
    assert equal(compression.dense.state_dict(), trained.state_dict())


def test_of_a_large_model_what_took_long_is_kept_and_what_is_made_in_a_moment_is_not(
    trained: ConvNet, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "SMALL_MODEL", 1)
    few = dataclasses.replace(digits, train=digits.train.first(64))
    for recipe, kept in (({}, 1), ({"epochs": 1}, 2), ({"energy": 0.8}, 3)):
        compression = Compression(trained, few)
        compression.model(Recipe(ratio=0.5, **recipe))
        assert len(compression._models) == kept
    monkeypatch.setitem(pipeline.__globals__, "MODEL_BYTES", 1)
    most = list[int]()

    def noted(*given: Any) -> nn.Module:
        most.append(len(compression._models) + 1)
        return make(*given)

    make = pipeline.__globals__["_STEPS"]["pruned"]
    monkeypatch.setitem(pipeline.__globals__["_STEPS"], "pruned", noted)
    for ratio in (0.6, 0.7, 0.8):
        compression.model(Recipe(ratio=ratio, epochs=1))
    assert most == [2, 2, 2]  # room was made before


@pytest.mark.parametrize("recipe", [Recipe(ratio=0.5), Recipe(energy=0.8, ratio=0.0)])
def test_of_a_large_model_every_step_can_be_cancelled_between_tensors(
    trained: ConvNet, digits: Dataset, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    monkeypatch.setattr(inference, "SMALL_MODEL", 1)
    compression, stop = Compression(trained, digits, slice_size=100), Event()
    looked = []

    def svd(matrix: Tensor, **how: Any) -> Any:
        looked.append(matrix.shape)
        stop.set()
        return real(matrix, **how)

    real = torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", svd)
    if recipe.energy < 1:
        with pytest.raises(training.Cancelled, match="before the step 'low rank' was done"):
            compression.step(recipe, cancel=stop)
        assert len(looked) == 1  # of several layers
    else:
        written = pipeline.__globals__["written"]

        def stopped(*given: Any, **how: Any) -> Any:
            stop.set()
            return written(*given, **how)

        monkeypatch.setitem(pipeline.__globals__, "written", stopped)
        with pytest.raises(training.Cancelled, match="while the file was written"):
            compression.step(recipe, cancel=stop)
        monkeypatch.setitem(pipeline.__globals__, "written", written)
    stop.clear()
    assert compression.known(recipe) is None
    monkeypatch.setattr(torch.linalg, "svd", real)
    assert compression.step(recipe, cancel=stop).whole
