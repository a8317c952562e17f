"""Linear layers in whole numbers: against the same sums by hand, and what the scales leave as error."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kit import models, training
from kit.compress import int8
from tests.nets import same
from tests.strangers import STRANGERS


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 24), (50, 24), (3, 7, 24), (24,)])
@pytest.mark.parametrize("bias", [True, False])
def test_sums_are_those_of_the_rounded_numbers(shape: tuple[int, ...], dtype: torch.dtype, bias: bool) -> None:
    layer, x = nn.Linear(24, 10, bias=bias).to(dtype), normal(*shape).to(dtype)
    quick: Any = int8(layer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        came = quick(x)
    rows = x.double().numpy()
    steps = np.abs(rows).max(-1, keepdims=True) / 127
    rounded = np.round(rows / steps) * steps
    wanted = rounded @ quick.weight.detach().double().numpy().T
    wanted = wanted + layer.bias.detach().double().numpy() if bias else wanted
    near = 0.05 if dtype == torch.bfloat16 else 1e-5
    assert came.dtype == dtype
    np.testing.assert_allclose(came.double().numpy(), wanted, rtol=near, atol=near)
    step = layer.weight.detach().abs().amax(1, keepdim=True) / 127
    assert ((quick.weight - layer.weight).abs() <= 0.51 * step).all()


def test_model_keeps_all_but_its_linear_layers() -> None:
    model = models.LeNet5()
    before = copy.deepcopy(model)
    quick: Any = int8(model)
    assert same(model, before)
    assert torch.equal(quick.conv1.weight, model.conv1.weight)
    x = normal(20, 1, 28, 28)
    wanted = training.predict(model, x)
    assert 0 < float((training.predict(quick, x) - wanted).norm() / wanted.norm()) < 0.05
    assert not [name for name, _ in quick.named_parameters() if name.startswith("fc")]
    zero = nn.Linear(3, 2)
    zero.weight.data.zero_()
    assert torch.equal(int8(zero)(torch.zeros(4, 3)), zero.bias.detach().expand(4, 2))


@pytest.mark.parametrize("name", [name for name in STRANGERS if name != "always dropping"])
def test_strangers_answer_nearly_as_before(name: str) -> None:
    torch.manual_seed(0)
    model, x = STRANGERS[name](), normal(40, 1, 8, 8)
    wanted = training.predict(model, x)
    assert float((training.predict(int8(model), x) - wanted).norm() / wanted.norm()) < 0.1


def test_bad_input_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^model must be a torch.nn.Module; got 3\.$"):
        int8(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^model: Conv2d has no linear layer without hooks\.$"):
        int8(nn.Conv2d(1, 2, 3))


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_layers_are_called_as_before_and_those_without_numbers_stay() -> None:
    model = nn.Sequential(nn.Linear(4, 0), nn.Linear(0, 3), nn.Linear(3, 2))
    quick: Any = int8(model)
    x = normal(5, 4)
    assert [type(each).__name__ for each in quick] == ["Linear", "Linear", "Int8Linear"]
    assert torch.allclose(quick(x), model(x), atol=0.02)
    assert torch.equal(quick[2](input=normal(5, 3)), quick[2](normal(5, 3)))


def test_layers_with_hooks_stay() -> None:
    model, heard = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), list[int]()
    model[0].register_forward_hook(lambda *_: heard.append(1))
    quick: Any = int8(model)
    quick(normal(5, 4))
    assert [type(each).__name__ for each in quick] == ["Linear", "Int8Linear"]
    assert heard == [1]
