"""Convolutional networks by their dimensions: parameters, bytes, FLOPs an image, activations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kit import checks
from kit.cost.roofline import Hardware, Step
from kit.cost.storage import FLOAT16, Storage


@dataclass(frozen=True)
class Layer:
    """A convolution, or, with a kernel of 1 and one pixel, a fully connected layer.

    Attributes:
        inputs, outputs: channels, 1 or more.
        kernel: its side in pixels.
        pixels: side of the square that comes out.
        stride: of the kernel.
        groups: a divisor of both numbers of channels; as many as channels for a depthwise convolution.
        bias: whether it has one.
        norm: whether a batch normalisation follows: two parameters a channel (its statistics are no parameters).
        part: of the network that it is counted under.

    Raises:
        ValueError: a number that is not allowed; TypeError for what is no whole number.
    """

    inputs: int
    outputs: int
    kernel: int = 1
    pixels: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    norm: bool = True
    part: str = "convolutions"

    def __post_init__(self) -> None:
        """Refuse what is no layer."""
        for name in ("inputs", "outputs", "kernel", "pixels", "stride", "groups"):
            checks.whole(name, getattr(self, name), 1)
        if self.inputs % self.groups or self.outputs % self.groups:
            raise ValueError(f"groups must divide {self.inputs} and {self.outputs} channels; got {self.groups}.")

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix that the kernel is: outputs, and inputs times pixels of the kernel."""
        return self.outputs, self.inputs // self.groups * self.kernel**2

    @property
    def weights(self) -> int:
        """Of the kernel."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class ConvNet:
    """A convolutional network as a list of its layers; nothing is built.

    Attributes:
        name: of it.
        layers: in order; `resnet` and `separable` make such lists.
        image: numbers of an image: channels times pixels.
        source: where the dimensions are from.

    Raises:
        ValueError: no layers, or an empty image.
    """

    name: str
    layers: tuple[Layer, ...]
    image: int
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no network."""
        if not self.layers:
            raise ValueError("layers must have at least one; got none.")
        for layer in self.layers:
            checks.instance("a layer", layer, Layer)
        checks.whole("image", self.image, 1)

    @property
    def matrices(self) -> int:
        """Weights of all kernels: what pruning, low rank and the like act on."""
        return sum(layer.weights for layer in self.layers)

    @property
    def parts(self) -> dict[str, int]:
        """Parameters by part of the network, norms apart; their sum is `parameters`."""
        parts = {layer.part: 0 for layer in self.layers} | {"norms": 0}
        for layer in self.layers:
            parts[layer.part] += layer.weights + layer.outputs * layer.bias
            parts["norms"] += 2 * layer.outputs * layer.norm
        return parts

    @property
    def parameters(self) -> int:
        """All of them."""
        return sum(self.parts.values())

    def bytes(self, storage: Storage = FLOAT16) -> float:
        """Bytes of the weights. Biases and norms, which are few, have 16 bits at least."""
        return storage.bytes(self.matrices) + (self.parameters - self.matrices) * storage.activations / 8

    def macs(self) -> int:
        """Multiply-adds an image: what papers on convolutional networks often call FLOPs."""
        return sum(layer.weights * layer.pixels**2 for layer in self.layers)

    def flops(self) -> int:
        """FLOPs an image, two a multiply-add; kernels only, as `measure.flops`."""
        return 2 * self.macs()

    def activations(self, batch: int = 1, bits: float = 16) -> float:
        """Bytes of the largest input and output of a layer, which are alive at once: an estimate.

        Not counted: a shortcut that waits, and what a library holds back.
        """
        checks.whole("batch", batch, 1)
        alive = (x.inputs * (x.pixels * x.stride) ** 2 + x.outputs * x.pixels**2 for x in self.layers)
        return batch * max(alive) * bits / 8

    def pass_over(self, batch: int = 1, storage: Storage = FLOAT16, hardware: Hardware | None = None) -> Step:
        """One pass of `batch` images; moved: each weight and each image once. Zeros as for `Transformer.prefill`."""
        checks.whole("batch", batch, 1)
        stored = storage.in_memory(sparse=hardware is not None and hardware.sparse)
        flops = batch * self.flops() * (1 - stored.sparsity)
        return Step(flops, self.bytes(stored) + batch * self.image * storage.activations / 8, storage.arithmetic)

    def thinner(self, share: float) -> ConvNet:
        """With that share of the channels, those of the image and the classes apart: rounded, at least 1."""
        checks.number("share", share, above=0)

        def fewer(channels: int) -> int:
            return max(1, round(share * channels))

        ends, layers = (self.layers[0].inputs, self.layers[-1].outputs), []
        for at, layer in enumerate(self.layers):
            inputs = ends[0] if at == 0 else fewer(layer.inputs)
            outputs = ends[1] if at == len(self.layers) - 1 else fewer(layer.outputs)
            groups = outputs if layer.groups == layer.outputs > 1 else layer.groups
            layers.append(replace(layer, inputs=inputs, outputs=outputs, groups=groups))
        return replace(self, layers=tuple(layers))

    def factored(self, rank: float) -> ConvNet:
        """Each kernel as two: to `rank` times the smaller side of its matrix, then 1x1; depthwise ones stay whole."""
        checks.share("rank", rank, one=False)
        layers = list[Layer]()
        for layer in self.layers:
            if layer.groups > 1:
                layers.append(layer)
                continue
            middle = max(1, round(rank * min(layer.shape)))
            layers.append(replace(layer, outputs=middle, bias=False, norm=False))
            layers.append(replace(layer, inputs=middle, kernel=1, stride=1))
        return replace(self, layers=tuple(layers))


def resnet(
    name: str,
    blocks: Sequence[int],
    widths: Sequence[int] = (64, 128, 256, 512),
    *,
    bottleneck: bool = False,
    channels: int = 3,
    pixels: int = 224,
    classes: int = 1000,
    stem: int = 7,
    source: str = "",
) -> ConvNet:
    """A residual network (He et al. 2016, arXiv:1512.03385, table 1); each stage after the first halves the image.

    Args:
        name: of it.
        blocks: of each stage.
        widths: channels of each stage; those of a bottleneck's output are 4 times as many.
        bottleneck: blocks of 1x1, 3x3 and 1x1 in place of two of 3x3. The 3x3 one has the stride, as in torchvision's;
            in the paper it is the first 1x1 one.
        channels: of the image.
        pixels: side of the image.
        classes: logits.
        stem: 7 for a 7x7 convolution of stride 2 and a pooling of stride 2, 3 for a 3x3 one of stride 1 and none.
        source: where the dimensions are from.

    Raises:
        ValueError: another stem, or not as many widths as stages.
    """
    checks.one_of("stem", stem, (3, 7))
    if len(blocks) != len(widths):
        raise ValueError(f"widths must have one for each stage of blocks; got {len(widths)} and {len(blocks)}.")
    image, side = channels * pixels**2, pixels if stem == 3 else _half(pixels)
    layers = [Layer(channels, widths[0], stem, side, pixels // side)]
    before, side = widths[0], side if stem == 3 else _half(side)
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for block in range(count):
            stride = 2 if stage and not block else 1
            outer = 4 * width if bottleneck else width
            after = _half(side) if stride == 2 else side
            if bottleneck:
                layers.append(Layer(before, width, 1, side))
                layers += [Layer(width, width, 3, after, stride), Layer(width, outer, 1, after)]
            else:
                layers += [Layer(before, width, 3, after, stride), Layer(width, width, 3, after)]
            if before != outer or stride != 1:
                layers.append(Layer(before, outer, 1, after, stride, part="shortcuts"))
            before, side = outer, after
    return ConvNet(name, (*layers, _head(before, classes)), image, source)


def separable(
    name: str,
    widths: Sequence[tuple[int, int]],
    *,
    stem: int = 32,
    channels: int = 3,
    pixels: int = 224,
    classes: int = 1000,
    source: str = "",
) -> ConvNet:
    """Depthwise 3x3 convolutions, each followed by a 1x1 one: MobileNet.

    Source: Howard et al. 2017, arXiv:1704.04861, table 1.

    Args:
        name: of it.
        widths: outputs and stride of each pair.
        stem: channels of the 3x3 convolution of stride 2 before them.
        channels: of the image.
        pixels: side of the image.
        classes: logits.
        source: where the dimensions are from.
    """
    layers = [Layer(channels, stem, 3, side := _half(pixels), 2)]
    for before, (width, stride) in zip([stem, *(width for width, _ in widths)], widths, strict=False):
        side = _half(side) if stride == 2 else side
        layers.append(Layer(before, before, 3, side, stride, groups=before, part="depthwise"))
        layers.append(Layer(before, width, 1, side))
    return ConvNet(name, (*layers, _head(layers[-1].outputs, classes)), channels * pixels**2, source)


def perceptron(sizes: Sequence[int]) -> tuple[Layer, ...]:
    """Fully connected layers with biases: `sizes[0] -> ... -> sizes[-1]`."""
    return tuple(Layer(a, b, bias=True, norm=False, part="head") for a, b in itertools.pairwise(sizes))


def _half(pixels: int) -> int:
    return -(-pixels // 2)


def _head(inputs: int, classes: int) -> Layer:
    return Layer(inputs, classes, bias=True, norm=False, part="head")
