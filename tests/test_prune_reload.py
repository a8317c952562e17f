"""A smaller model back from its file, into the class that it had before: prune.load_smaller."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kit import files, models, prune, training
from kit.data import Dataset
from tests.nets import same
from tests.strangers import STRANGERS, pooled

MODELS: dict[str, Callable[[], nn.Module]] = {
    **STRANGERS,
    "group norm": lambda: pooled(nn.Conv2d(1, 16, 3), nn.GroupNorm(4, 16), nn.Conv2d(16, 8, 3), width=8),
    "batch norm without scales": lambda: pooled(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, affine=False), nn.PReLU(8), nn.Conv2d(8, 6, 3), width=6
    ),
    "instance norm": lambda: pooled(nn.Conv2d(1, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.Conv2d(8, 6, 3), width=6),
    "transposed, grouped": lambda: pooled(
        nn.Conv2d(1, 8, 3), nn.ConvTranspose2d(8, 12, 3, groups=2), nn.ReLU(), nn.Conv2d(12, 6, 3), width=6
    ),
}


def answers(model: nn.Module, dataset: Dataset) -> torch.Tensor:
    return training.predict(model, dataset.validation.inputs[:32])


@pytest.mark.parametrize("case", MODELS)
def test_whatever_channels_are_gone_the_class_it_had_takes_it_back(digits: Dataset, case: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, other = (MODELS[case]() for _ in range(2))  # with other weights: as built anew elsewhere
    try:
        thin = prune.remove_channels(model, ratio=0.4, dataset=digits, scope="global", importance="random").model
    except prune.Untraceable:
        pytest.skip("nothing of it can be removed")
    files.write(thin, tmp_path / "thin.safetensors", sparse=False)
    back = prune.load_smaller(other, tmp_path / "thin.safetensors")
    assert same(back, thin) and str(back) == str(thin)  # the printed layers show their sizes
    if case != "always dropping":
        assert answers(back, digits).equal(answers(thin, digits))


def test_it_has_what_the_original_has_and_leaves_that_alone(digits: Dataset, tmp_path: Path) -> None:
    path, model = tmp_path / "thin.safetensors", models.ResNet(seed=0)
    thin = prune.channels(model, ratio=0.5, dataset=digits)
    files.write(thin, path, sparse=True)
    original = models.ResNet(seed=1).eval()
    original.head.bias.requires_grad_(False)
    original.register_buffer("scratch", torch.ones(3), persistent=False)
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    back: Any = prune.load_smaller(original, path)
    assert (
        same(back, thin)
        and not back.training
        and not back.head.bias.requires_grad
        and back.scratch.equal(torch.ones(3))
    )
    assert all(tensor.equal(before[name]) for name, tensor in original.state_dict().items())
    prune.fine_tune(back, digits, epochs=1)  # it trains on
    assert same(prune.load_smaller(prune.channels(original, ratio=0.25, dataset=digits), path), thin)


def test_zeros_and_masks_come_back_too(digits: Dataset, tmp_path: Path) -> None:
    path, masked = tmp_path / "masked.safetensors", prune.weights(models.ConvNet(seed=0), ratio=0.9)
    files.write(masked, path, sparse=True)
    assert same(prune.load_smaller(models.ConvNet(seed=1), path), masked)
    normed = STRANGERS["computed weight"]()  # its file has plain weights
    files.write(prune.weights(normed, ratio=0.5), path, sparse=True)
    assert answers(prune.load_smaller(normed, path), digits).equal(answers(prune.weights(normed, ratio=0.5), digits))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (models.ConvNet(channels=(4, 8)), r"tensor 'conv1.bias' is \(8,\) in the file and \(4,\) in the model"),
        (models.MLP(), "tensor 'conv1.bias' is .* in the file and absent in the model"),
    ],
)
def test_a_file_of_another_model_is_refused(model: nn.Module, said: str, tmp_path: Path) -> None:
    files.write(models.ConvNet(channels=(8, 8), hidden=16), tmp_path / "other.safetensors", sparse=False)
    with pytest.raises(ValueError, match=f"model does not fit .*: {said}"):
        prune.load_smaller(model, tmp_path / "other.safetensors")


def test_a_layer_whose_size_no_tensor_tells_is_refused(digits: Dataset, tmp_path: Path) -> None:
    path, norm = tmp_path / "bare.safetensors", nn.GroupNorm(4, 16, affine=False)
    model = pooled(nn.Conv2d(1, 16, 3), norm, nn.Conv2d(16, 8, 3), width=8)
    files.write(prune.channels(model, ratio=0.5, dataset=digits), path, sparse=False)
    with pytest.raises(
        ValueError, match="model: nothing in the file says how many groups 1 keeps; save it by torch.ex"
    ):
        prune.load_smaller(model, path)
    files.write(prune.weights(model, ratio=0.5), path, sparse=False)
    prune.load_smaller(model, path)  # nothing was cut


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="model must be a model"):
        prune.load_smaller("net", tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        prune.load_smaller(models.MLP(), tmp_path / "x")
    torch.save(models.MLP().state_dict(), tmp_path / "net.pt")
    with pytest.raises(files.WeightsFileError, match="It looks like torch.save"):
        prune.load_smaller(models.MLP(), tmp_path / "net.pt")


def test_an_exported_program_needs_neither_class_nor_kit(digits: Dataset, tmp_path: Path) -> None:
    """What the notebook and README say about torch.export."""
    thin = prune.channels(models.ConvNet(seed=0), ratio=0.5, dataset=digits).eval()
    batch = {0: torch.export.Dim("n")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(thin, (digits.train.inputs[:2],), dynamic_shapes=(batch,))
        torch.export.save(program, tmp_path / "thin.pt2")
        back = torch.export.load(tmp_path / "thin.pt2").module()
    assert back(digits.validation.inputs[:32]).allclose(answers(thin, digits), atol=1e-6)
