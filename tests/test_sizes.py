from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune

from kit import files, measure, models, prune, sizes
from kit.data import Dataset

pytestmark = pytest.mark.usefixtures("one_thread")


def all_sizes(model: nn.Module) -> tuple[int, int, int]:
    return sizes.parameters(model), sizes.nonzeros(model), sizes.dense_bytes(model)


def test_sizes_in_closed_form() -> None:
    net = models.MLP((20, 30, 5))
    count = 20 * 30 + 30 + 30 * 5 + 5
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    tied[2].weight = tied[0].weight
    for model, parameters, nonzeros, memory in (
        (net, count, count, 4 * count),
        (prune.weights(net, ratio=0.8), count, count - 600, 4 * count),  # 0.8 of 750 weights; biases stay
        (nn.BatchNorm1d(7), 14, 7, 4 * 28 + 8),  # scale, shift; running mean, variance; one int64 counter
        (nn.Linear(3, 2, dtype=torch.float64), 8, 8, 8 * 8),
        (tied, 16, 16, 64),  # a shared tensor counts once
    ):
        assert all_sizes(model) == (parameters, nonzeros, memory)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.9])
def test_file_bytes_are_those_of_a_file_really_written(trained: nn.Module, tmp_path: Path, ratio: float) -> None:
    net = prune.weights(trained, ratio=ratio)
    size = sizes.file_bytes(net)
    assert size == files.write(net, tmp_path / "net", sparse=True) == (tmp_path / "net").stat().st_size
    weights = sizes.parameters(net)
    if ratio == 0.9:
        assert 5 * 0.1 * weights < size < 1.2 * 5 * 0.1 * weights + 2000  # four bytes and a gap for each that is left
    else:
        assert 4 * (1 - ratio) * weights < size < sizes.dense_bytes(net) + 1000
    back = files.read(tmp_path / "net")
    assert all(torch.equal(back[name], tensor) for name, tensor in net.state_dict().items())


def test_file_bytes_notices_a_file_that_reads_back_otherwise() -> None:
    with pytest.raises(RuntimeError, match=r"the file written for layers.0.weight does not read back equal"):
        sizes.file_bytes(
            models.MLP(), decode=lambda data: {name: tensor * 2 for name, tensor in files.decode(data).items()}
        )


def test_flops_in_closed_form(digits: Dataset) -> None:
    """Two for each multiply-add, for one sample whatever the batch."""
    x = digits.train.inputs[:5]
    mlp = models.MLP((64, 30, 10))
    assert sizes.flops(mlp, x) == 2 * (64 * 30 + 30 * 10)
    assert sizes.flops(prune.weights(mlp, ratio=0.9), x) == sizes.flops(mlp, x)  # zeros are multiplied too
    conv = models.ConvNet(channels=(3, 5), hidden=7)
    assert sizes.flops(conv, x) == 2 * (64 * 9 * 3 + 64 * 9 * 3 * 5 + 5 * 16 * 7 + 7 * 10)
    thin = prune.channels(models.ConvNet(), ratio=0.5, dataset=digits)
    assert sizes.flops(thin, x) == sizes.flops(models.ConvNet(channels=(16, 32), hidden=64), x)


@pytest.mark.parametrize("fused", [True, False])
def test_flops_see_into_fused_attention(digits: Dataset, fused: bool) -> None:
    """In evaluation mode torch runs attention as one operation that its counter does not know."""

    class Attention(nn.MultiheadAttention):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            x = x.squeeze(1)  # [n, 8 rows, 8 pixels]
            return super().forward(x, x, x, need_weights=False)[0].mean(1)

    projections, products = 4 * 2 * 8 * 8 * 8, 2 * 2 * 8 * 8 * 8  # q, k, v, out; then scores and their sum of values
    torch.backends.mha.set_fastpath_enabled(fused)
    try:
        assert sizes.flops(Attention(8, 2, batch_first=True), digits.train.inputs) == projections + products
        assert torch.backends.mha.get_fastpath_enabled() is fused  # left as it was
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


class Masked(nn.Module):
    """Keeps every second column."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * (torch.arange(weight.shape[1]) % 2)


def test_masks_of_torch_and_parametrisations_are_seen() -> None:
    net = models.MLP((20, 30, 5))
    for layer in net.layers:
        torch_prune.l1_unstructured(layer, "weight", amount=0.8)
    count = 20 * 30 + 30 + 30 * 5 + 5
    assert all_sizes(net) == (count, count - 600, 4 * (count + 750))  # the masks take memory, too
    for layer in net.layers:
        torch_prune.remove(layer, "weight")
    assert all_sizes(net) == (count, count - 600, 4 * count)

    layer = nn.Linear(6, 4)
    parametrize.register_parametrization(layer, "weight", Masked())
    assert all_sizes(layer) == (28, 4 + 12, 4 * 28)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))
    assert all_sizes(normed) == (28 + 4, 28 + 4, 4 * 32)


def test_counting_changes_nothing() -> None:
    """A spectral norm moves in training at every look at its weight."""
    net = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    sizes.nonzeros(net)
    assert net.training and all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_weights_that_share_their_memory_count_once() -> None:
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    net[1].weight = nn.Parameter(net[0].weight.data)  # type: ignore[arg-type]
    assert all_sizes(net) == (20, 20, 80)
    with torch.device("meta"):
        assert sizes.parameters(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))) == 24


@pytest.mark.parametrize(("dtype", "width"), [(torch.float64, 8), (torch.float16, 2), (torch.bfloat16, 2)])
def test_sizes_of_other_dtypes(digits: Dataset, dtype: torch.dtype, width: int) -> None:
    net = models.MLP((64, 30, 10)).to(dtype)
    count = 64 * 30 + 30 + 30 * 10 + 10
    assert all_sizes(net) == (count, count, width * count)
    assert width * count < sizes.file_bytes(net) < width * count + 1000
    assert sizes.flops(net, digits.test.inputs) == 2 * (64 * 30 + 30 * 10)
    assert measure.profile(net, digits.validation).latency.value > 0


class Series(nn.Module):
    """A recurrent layer between two linear ones: its last output gives the logits."""

    def __init__(self, kind: Any, **settings: Any) -> None:
        super().__init__()
        self.first, self.series = nn.Linear(8, 6), kind(6, 10, **settings)
        width = (settings.get("proj_size") or 10) * (2 if settings.get("bidirectional") else 1)
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x[:, 0])  # [n, 8 steps, 6]
        batch_first = getattr(self.series, "batch_first", True)
        h = self.series(x if batch_first else x.transpose(0, 1))[0]
        return self.last(h[:, -1] if batch_first else h[-1])


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flops_of_recurrent_layers(
    digits: Dataset, kind: Any, gates: int, batch_first: bool, dtype: torch.dtype
) -> None:
    x, ends = digits.test.inputs, 2 * (8 * 8 * 6)
    one = sizes.flops(Series(kind, batch_first=batch_first).to(dtype), x)
    assert one == ends + 2 * 10 * 10 + 8 * 2 * gates * 10 * (6 + 10)
    two = sizes.flops(Series(kind, batch_first=batch_first, num_layers=2, bidirectional=True).to(dtype), x)
    assert two == ends + 2 * 20 * 10 + 8 * 2 * gates * 10 * 2 * (6 + 10 + 20 + 10)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_flops_of_an_lstm_with_projection(digits: Dataset) -> None:
    net = Series(nn.LSTM, batch_first=True, proj_size=3)
    by_hand = 8 * 2 * (4 * 10 * (6 + 3) + 10 * 3)
    assert sizes.flops(net, digits.test.inputs) == 2 * (8 * 8 * 6) + 2 * 3 * 10 + by_hand


def test_flops_of_transformers(digits: Dataset) -> None:
    """In evaluation mode torch runs the whole layer as one operation."""

    class Encoder(nn.TransformerEncoderLayer):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x.squeeze(1)).mean(1)

    n, d, hidden = 8, 8, 12  # rows, pixels of a row
    by_hand = 2 * (4 * n * d * d) + 2 * 2 * n * n * d + 2 * 2 * n * d * hidden
    assert sizes.flops(Encoder(d, 2, hidden, batch_first=True), digits.test.inputs) == by_hand


class Products(nn.Module):
    """Scores the rows of an image by one vector, in some way."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.vector, self.bilinear = way, nn.Parameter(torch.ones(8)), nn.Bilinear(8, 8, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows = x[0, 0]  # [8, 8]
        ways = {
            "mv": lambda: rows @ self.vector,
            "addmv": lambda: torch.addmv(self.vector, rows, self.vector),
            "dot": lambda: torch.dot(rows[0], self.vector),
            "sdpa": lambda: F.scaled_dot_product_attention(x, x, x),
            "einsum": lambda: torch.einsum("nchw,w->nch", x, self.vector),
            "bilinear": lambda: self.bilinear(rows, rows),
        }
        return ways[self.way]().flatten()[None]


@pytest.mark.parametrize(
    ("way", "by_hand"), [("mv", 128), ("addmv", 128), ("dot", 16), ("sdpa", 2 * 2 * 8 * 8 * 8), ("einsum", 128)]
)
def test_flops_of_products_that_torch_does_not_count(digits: Dataset, way: str, by_hand: int) -> None:
    assert sizes.flops(Products(way), digits.test.inputs) == by_hand


def test_operations_that_cannot_be_counted_are_refused(digits: Dataset) -> None:
    with pytest.raises(
        ValueError, match=r"^model: its FLOPs are not known, since aten\._trilinear cannot be counted\.$"
    ):
        sizes.flops(Products("bilinear"), digits.test.inputs)


@pytest.fixture
def quantise() -> Any:
    quantization = pytest.importorskip("torch.ao.quantization")
    if torch.backends.quantized.engine == "none":
        pytest.skip("this build of torch cannot quantise")
    return quantization


@pytest.mark.filterwarnings("ignore")  # torch.ao is deprecated; readers' models still come from it
@pytest.mark.parametrize(("dtype", "width", "scales"), [(torch.qint8, 1, 2 * 16), (torch.float16, 2, 0)])
def test_dynamically_quantised_layers_are_counted(
    digits: Dataset, quantise: Any, dtype: torch.dtype, width: int, scales: int
) -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))
    models.initialise(plain, 0)
    with torch.no_grad():
        plain[1].weight[:, ::2] = 0  # type: ignore[operator]
    net = quantise.quantize_dynamic(plain.eval(), {nn.Linear}, dtype=dtype)
    weights, biases = 64 * 30 + 30 * 10, 40
    alike = sum(int(net[at].weight().dequantize().count_nonzero()) for at in (1, 3)) + biases
    assert alike < sizes.parameters(net) - 900
    assert all_sizes(net) == (weights + biases, alike, width * weights + scales + 4 * biases)
    assert sizes.dense_bytes(net) * 0.5 < sizes.file_bytes(net) < sizes.dense_bytes(net) + 2000
    assert sizes.flops(net, digits.test.inputs) == sizes.flops(plain, digits.test.inputs) == 2 * weights
    assert measure.profile(net, digits.validation).parameters == weights + biases


@pytest.mark.filterwarnings("ignore")
def test_statically_quantised_layers_are_counted(digits: Dataset, quantise: Any) -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    net = nn.Sequential(quantise.QuantStub(), *layers, quantise.DeQuantStub()).eval()
    net.qconfig = quantise.get_default_qconfig(torch.backends.quantized.engine)
    prepared = quantise.prepare(quantise.fuse_modules(net, [["1", "2"]]))
    prepared(digits.train.inputs[:64])
    quantised = quantise.convert(prepared)
    assert sizes.parameters(quantised) == sizes.parameters(net) == 36 + 4 + 1440 + 10
    assert sizes.flops(quantised, digits.test.inputs) == 2 * (36 * 36 + 1440)
    integers, floats = 36 + 1440, 4 + 10
    assert integers + 4 * floats < sizes.dense_bytes(quantised) < integers + 4 * floats + 16 * 20
    assert integers < sizes.file_bytes(quantised) < integers + 3000


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_lstm_is_counted_but_for_its_flops(digits: Dataset, quantise: Any) -> None:
    net = quantise.quantize_dynamic(Series(nn.LSTM, batch_first=True).eval(), {nn.LSTM}, dtype=torch.qint8)
    assert sizes.parameters(net) == sizes.parameters(Series(nn.LSTM)) == 8 * 6 + 6 + 4 * 10 * (6 + 10 + 2) + 110
    with pytest.raises(ValueError, match=r"its FLOPs are not known, since aten\.quantized_lstm cannot"):
        sizes.flops(net, digits.test.inputs)


class Quantised(nn.Module):
    """A quantised layer of some kind, on images of 64 pixels in some shape."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...], dynamic: bool) -> None:
        super().__init__()
        self.layer, self.shape, self.dynamic = layer, shape, dynamic

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(len(x), *self.shape)
        if self.dynamic:
            return self.layer(x).flatten(1)
        return self.layer(torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)).dequantize().flatten(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "sizes_of_layer", "shape", "products"),
    [
        ("quantized.Linear", (64, 6), (64,), 6 * 64),
        ("intrinsic.quantized.LinearReLU", (64, 6), (64,), 6 * 64),
        ("intrinsic.quantized.dynamic.LinearReLU", (64, 6), (64,), 6 * 64),
        ("quantized.Conv1d", (4, 6, 3), (4, 16), 6 * 14 * 4 * 3),
        ("quantized.Conv2d", (1, 6, 3), (1, 8, 8), 6 * 36 * 9),
        ("quantized.Conv3d", (1, 6, 2), (1, 4, 4, 4), 6 * 27 * 8),
        ("intrinsic.quantized.ConvReLU1d", (4, 6, 3), (4, 16), 6 * 14 * 4 * 3),
        ("quantized.dynamic.Conv1d", (4, 6, 3), (4, 16), 6 * 14 * 4 * 3),
    ],
)
def test_flops_of_every_kind_of_quantised_layer(
    digits: Dataset, quantise: Any, kind: str, sizes_of_layer: tuple[int, ...], shape: tuple[int, ...], products: int
) -> None:
    layer = operator.attrgetter(kind)(torch.ao.nn)(*sizes_of_layer)
    net = Quantised(layer, shape, "dynamic" in kind)
    assert sizes.flops(net, digits.test.inputs) == 2 * products


class Rows(nn.Module):
    """A weight whose rows are all the same: kept as one."""

    def forward(self, row: Tensor) -> Tensor:
        return row.expand(4, -1)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight[0]


def test_only_the_masks_and_parametrisations_of_torch_are_taken_for_such() -> None:
    own = nn.Module()
    for name in ("weight", "scale_orig", "original"):  # names that mean something elsewhere
        own.register_parameter(name, nn.Parameter(torch.ones(3)))
    own.register_buffer("weight_mask", torch.zeros(3))
    assert sizes.nonzeros(own) == 9
    rows = nn.Linear(6, 4, bias=False)
    parametrize.register_parametrization(rows, "weight", Rows())
    assert sizes.nonzeros(rows) == sizes.parameters(rows) == 6  # what is kept, not the 24 that are made of it
