"""Networks to make smaller: an MLP, the chapter's ConvNet (repaired), a small ResNet, a transformer, networks of cells.

Each draws its first weights by a `seed` of its own: building one neither reads nor moves the global random state.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import checks
from kit.cells import EDGES, NAMES, OUTPUT, Cell, as_cell


class MLP(nn.Module):
    """Fully connected layers with ReLU between them: `sizes[0] -> ... -> sizes[-1]`.

    Args:
        sizes: width of each layer, the input's and the classes' included; at least two, each at least 1 (else a
            ValueError). Inputs of any shape are flattened to `sizes[0]` numbers.
        seed: of the first weights, 0 or more.
    """

    def __init__(self, sizes: Sequence[int] = (64, 64, 10), *, seed: int = 0) -> None:
        super().__init__()
        self.sizes = sizes = _whole_numbers("sizes", sizes)
        if len(sizes) < 2:
            raise ValueError(f"sizes needs at least an input and an output width; got {list(sizes)}.")
        with torch.device("meta"):  # no memory and no random numbers until `initialise`
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        initialise(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, ...] to logits [n, sizes[-1]]; ValueError where samples do not flatten to sizes[0] numbers."""
        shape = tuple(x.shape[1:])
        x = x.flatten(1)  # [n, sizes[0]]
        if x.shape[1] != self.sizes[0]:
            raise ValueError(f"inputs: the model takes samples of {self.sizes[0]} numbers; got shape {shape}.")
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class ConvNet(nn.Module):
    """The chapter's network, repaired: two 3x3 convolutions, a pooling, two linear layers.

    The chapter's listing has no activation (its linear layers would collapse into one) and a first linear layer
    that fits 6x6 images only. Here ReLU stands between the layers and the linear layer follows the image.

    Args:
        in_channels: 1 for grey images, 3 for colour.
        image_size: height and width in pixels, or one number for both; at least 2.
        channels: output channels of the two convolutions, each at least 1, as all sizes (else a ValueError).
        hidden: width of the hidden linear layer.
        n_classes: number of logits.
        seed: of the first weights.
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int | tuple[int, int] = 8,
        channels: tuple[int, int] = (32, 64),
        hidden: int = 128,
        n_classes: int = 10,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        one = isinstance(image_size, Integral)
        height, width = _pair("image_size", (image_size, image_size) if one else image_size, 2)  # 2 for the pooling
        first, second = _pair("channels", channels)
        in_channels, hidden = checks.whole("in_channels", in_channels, 1), checks.whole("hidden", hidden, 1)
        n_classes = checks.whole("n_classes", n_classes, 1)
        self.input_shape = (in_channels, height, width)
        with torch.device("meta"):
            self.conv1 = nn.Conv2d(in_channels, first, kernel_size=3, padding=1)
            self.conv2 = nn.Conv2d(first, second, kernel_size=3, padding=1)
            self.fc1 = nn.Linear(second * (height // 2) * (width // 2), hidden)
            self.fc2 = nn.Linear(hidden, n_classes)
        initialise(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, in_channels, height, width] to logits [n, n_classes]; ValueError for another shape."""
        _check_images(x, self.input_shape)
        x = F.relu(self.conv1(x))  # [n, channels[0], h, w]
        # Pooling is several times faster with the channels of a pixel side by side in memory; the numbers are the same.
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # [n, channels[1], h/2, w/2]
        x = F.relu(self.fc1(x.flatten(1)))  # [n, hidden]
        return self.fc2(x)


def lenet_300_100(*, seed: int = 0) -> MLP:
    """LeNet-300-100, 266,610 parameters: 28 x 28 images -> 300 -> 100 -> 10 logits (LeCun et al. 1998)."""
    return MLP((784, 300, 100, 10), seed=seed)


class LeNet5(nn.Module):
    """LeNet-5 as the literature on compression means it, 431,080 parameters: for images of 1 x 28 x 28.

    Two 5x5 convolutions of 20 and 50 channels, each pooled, and 800 -> 500 -> 10. That is the variant of Caffe's
    examples, after LeCun et al. 1998, with ReLU after the convolutions too. `seed` is of the first weights.
    """

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        with torch.device("meta"):
            self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
            self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)
        initialise(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, 1, 28, 28] to logits [n, 10]; ValueError for another shape."""
        _check_images(x, (1, 28, 28))
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # [n, 20, 12, 12]
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # [n, 50, 4, 4]
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: `relu(x + f(x))` (He et al. 2016, arXiv:1512.03385, figure 2).

    Because of the sum, the channels of both branches can only be removed together.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, in_channels, h, w] to [n, out_channels, h/stride, w/stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A small residual network: a stem, one stage of blocks a width, global average pooling, one linear layer.

    Works on any image size. Source: He et al. 2016, arXiv:1512.03385.

    Args:
        in_channels: 1 for grey images, 3 for colour.
        widths: channels of each stage, at least one, and all sizes at least 1 (else a ValueError); each stage after
            the first halves the image.
        blocks: residual blocks a stage.
        n_classes: number of logits.
        seed: of the first weights.
    """

    def __init__(
        self,
        in_channels: int = 1,
        widths: Sequence[int] = (16, 32),
        blocks: int = 1,
        n_classes: int = 10,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        widths = _whole_numbers("widths", widths)
        if not widths:
            raise ValueError("widths needs at least one stage; got none.")
        self.in_channels = in_channels = checks.whole("in_channels", in_channels, 1)
        blocks, n_classes = checks.whole("blocks", blocks, 1), checks.whole("n_classes", n_classes, 1)
        with torch.device("meta"):
            self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
            self.stem_bn = nn.BatchNorm2d(widths[0])
            self.stages = nn.Sequential()
            for before, width in itertools.pairwise([widths[0], *widths]):
                stride = 2 if len(self.stages) else 1
                self.stages.append(ResidualBlock(before, width, stride))
                self.stages.extend(ResidualBlock(width, width, 1) for _ in range(blocks - 1))
            self.head = nn.Linear(widths[-1], n_classes)
        initialise(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, in_channels, height, width] to logits [n, n_classes]; ValueError for other channels."""
        _check_images(x, (self.in_channels, None, None))
        x = F.relu(self.stem_bn(self.stem(x)))  # [n, widths[0], h, w]
        x = self.stages(x)  # [n, widths[-1], h', w']
        return self.head(x.mean(dim=(2, 3)))


class CellNet(nn.Module):
    """One cell twice, between a stem and a head; the second time on a quarter of the pixels with twice the channels.

    The stem cuts the image into patches (a convolution as wide as its stride); between the cells stand a 2x2 mean and a
    1x1 convolution; the head is global average pooling and one linear layer. Cells that are the same network
    (`Cell.canonical`) give the same weights for the same seed.

    Args:
        cell: a `cells.Cell` or its text, such as "conv3 | skip conv1 | none pool"; a ValueError where it is malformed,
            or nothing of its input arrives at its output.
        in_channels: 1 for grey images, 3 for colour.
        patch: height and width of a patch in pixels; images must be twice as high and wide at least.
        width: channels of the first cell; all sizes at least 1 (else a ValueError).
        n_classes: number of logits.
        seed: of the first weights.
    """

    def __init__(
        self,
        cell: Cell | str,
        in_channels: int = 1,
        patch: int = 4,
        width: int = 8,
        n_classes: int = 10,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.cell = cell = as_cell(cell).canonical
        self.in_channels, self.patch = checks.whole("in_channels", in_channels, 1), checks.whole("patch", patch, 1)
        width, n_classes = checks.whole("width", width, 1), checks.whole("n_classes", n_classes, 1)
        with torch.device("meta"):
            self.stem = nn.Sequential(nn.Conv2d(in_channels, width, patch, stride=patch, bias=False), _norm(width))
            self.first: nn.Module = CellGraph(cell, width)
            self.between = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(width, 2 * width, 1, bias=False), _norm(2 * width))
            self.second: nn.Module = CellGraph(cell, 2 * width)
            self.norm = _norm(2 * width)
            self.head = nn.Linear(2 * width, n_classes)
        initialise(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, in_channels, height, width] to logits [n, n_classes]; ValueError for other or smaller ones."""
        return self.through(x, self.first, self.second)

    def through(self, x: Tensor, first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Tensor:
        """As `forward`, with these in place of the two cells."""
        _check_images(x, (self.in_channels, None, None))
        if min(x.shape[2:]) < (least := 2 * self.patch):
            raise ValueError(f"inputs: the model takes images of {least} x {least} or more; got {tuple(x.shape[1:])}.")
        x = first(self.stem(x))  # [n, width, h / patch, w / patch]
        x = second(self.between(x))  # [n, 2 width, half, half]
        return self.head(F.relu(self.norm(x)).mean(dim=(2, 3)))


class CellGraph(nn.Module):
    """One canonical cell: each node adds up what its edges bring. [n, width, h, w] -> the same shape."""

    def __init__(self, cell: Cell, width: int) -> None:
        super().__init__()
        edges = zip(NAMES, cell.operations, strict=True)
        self.edges = nn.ModuleDict({name: cell_operation(each, width) for name, each in edges if each != "none"})

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, width, h, w] to the same shape."""
        nodes = {0: x}
        for (start, end), name in zip(EDGES, NAMES, strict=True):
            if name in self.edges:
                came = self.edges[name](nodes[start])
                nodes[end] = nodes[end] + came if end in nodes else came
        return nodes[OUTPUT]


def cell_operation(name: str, width: int) -> nn.Module:
    """An operation of a cell, all but "none": [n, width, h, w] -> the same shape."""
    if name == "skip":
        return nn.Identity()
    if name == "pool":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    side = {"conv1": 1, "conv3": 3}[name]
    convolution = nn.Conv2d(width, width, side, padding=side // 2, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, _norm(width))


def _norm(width: int) -> nn.BatchNorm2d:
    """Statistics of about the last two batches: at torch's 0.1 those of a short training lag behind its weights."""
    return nn.BatchNorm2d(width, momentum=0.5)


class Attention(nn.Module):
    """Self-attention of several heads (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    How many heads there are follows from the width of `query`, so heads can be taken out. `width` is a multiple of
    `heads`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Map [n, length, width] to the same shape; `there`, bool [n, length], says where there is a token."""
        value = self.split(self.value(x))  # [n, heads, length, head_width]
        mixed = self.weights(x, there) @ value  # [n, heads, length, head_width]
        return self.out(mixed.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, there: Tensor) -> Tensor:
        """How much each token takes of each: [n, heads, length, length], rows add up to 1."""
        query, key = self.split(self.query(x)), self.split(self.key(x))
        scores = query @ key.transpose(2, 3) / math.sqrt(self.head_width)  # [n, heads, length, length]
        hidden = torch.finfo(scores.dtype).min  # not infinity: a text without a token would give NaN
        return scores.masked_fill(~there[:, None, None], hidden).softmax(3)

    def split(self, x: Tensor) -> Tensor:
        """[n, length, heads * head_width] -> [n, heads, length, head_width]."""
        return x.view(*x.shape[:2], -1, self.head_width).transpose(1, 2)


class TransformerBlock(nn.Module):
    """Attention, then two linear layers on each token, each with a normalisation before and a sum around it."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.hidden_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Map [n, length, width] to the same shape."""
        x = x + self.attention(self.attention_norm(x), there)
        return x + self.fc2(F.gelu(self.fc1(self.hidden_norm(x))))


class Transformer(nn.Module):
    """A small encoder that classifies texts: ids of tokens -> embeddings -> blocks -> mean over tokens -> logits.

    Source: Vaswani et al. 2017, arXiv:1706.03762, with the normalisation before each part (Xiong et al. 2020,
    arXiv:2002.04745), which trains without warming up.

    Args:
        vocabulary: number of ids, such as `dataset.tokens.size`; all sizes at least 1 (else a ValueError).
        length: tokens of the longest text; id 0 pads.
        n_classes: number of logits.
        width: numbers a token.
        heads: of each attention; a divisor of `width` (else a ValueError).
        layers: number of blocks.
        hidden: width of the middle of a block; by default 4 times `width`.
        seed: of the first weights.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        n_classes: int = 2,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
        hidden: int | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        vocabulary, n_classes = checks.whole("vocabulary", vocabulary, 1), checks.whole("n_classes", n_classes, 1)
        self.length, width = checks.whole("length", length, 1), checks.whole("width", width, 1)
        heads, layers = checks.whole("heads", heads, 1), checks.whole("layers", layers, 1)
        hidden = 4 * width if hidden is None else checks.whole("hidden", hidden, 1)
        if width % heads:
            raise ValueError(f"heads must divide width, {width}; got {heads}.")
        with torch.device("meta"):
            self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(self.length, width)
            self.blocks = nn.ModuleList(TransformerBlock(width, heads, hidden) for _ in range(layers))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, n_classes)
        initialise(self, seed)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids int64 [n, length], or shorter, to logits [n, n_classes]; ValueError for other inputs."""
        _check_ids(ids, self.length)
        there = ids != 0  # [n, length]
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]  # [n, length, width]
        for block in self.blocks:
            x = block(x, there)
        return self.head(mean_over(self.norm(x), there))


class BagOfWords(nn.Module):
    """The mean of the tokens' embeddings and one linear layer: which tokens there are, not in which order.

    Args:
        vocabulary: number of ids; all sizes at least 1 (else a ValueError).
        n_classes: number of logits.
        width: numbers a token.
        seed: of the first weights.
    """

    def __init__(self, vocabulary: int, n_classes: int = 2, width: int = 32, *, seed: int = 0) -> None:
        super().__init__()
        vocabulary, n_classes = checks.whole("vocabulary", vocabulary, 1), checks.whole("n_classes", n_classes, 1)
        with torch.device("meta"):
            self.tokens = nn.Embedding(vocabulary, checks.whole("width", width, 1))
            self.head = nn.Linear(width, n_classes)
        initialise(self, seed)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids int64 [n, any length] to logits [n, n_classes]; ValueError for other inputs."""
        _check_ids(ids)
        return self.head(mean_over(self.tokens(ids), ids != 0))


def mean_over(x: Tensor, there: Tensor) -> Tensor:
    """The mean of the tokens that are there, zeros where there is none. [n, length, width] -> [n, width]."""
    weights = there.to(x.dtype)[..., None]  # [n, length, 1]
    return (x * weights).sum(1) / weights.sum(1).clamp_min(1)


def initialise(model: nn.Module, seed: int) -> None:
    """Draw a model's weights anew, in place, from a generator of their own.

    The law is PyTorch's default for linear and convolutional layers: uniform within 1 / sqrt(fan in) for weights
    and biases (He et al. 2015, arXiv:1502.01852, with a = sqrt(5)). Embeddings are normal with a standard deviation of
    0.02 (Devlin et al. 2019, arXiv:1810.04805). Normalisation layers go back to scale 1, shift 0.
    Parameters on the meta device get memory on the CPU first.

    Args:
        model: Linear, Conv, Embedding, BatchNorm, LayerNorm and GroupNorm layers; a TypeError for others that have
            parameters.
        seed: of the generator, 0 or more.
    """
    checks.instance("model", model, nn.Module, "a torch.nn.Module")
    generator = torch.Generator().manual_seed(checks.whole("seed", seed))
    if any(parameter.is_meta for parameter in model.parameters()):
        model.to_empty(device="cpu")
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02, generator=generator)
        elif isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)):
            module.reset_parameters()  # constants: no random numbers
        elif any(True for _ in module.parameters(recurse=False)):
            which = f"{name or 'the module'} ({type(module).__name__})"
            raise TypeError(
                f"model: cannot initialise {which}; known are Linear, Conv, Embedding and normalisation layers."
            )


def _whole_numbers(argument: str, values: Any, least: int = 1) -> tuple[int, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{argument} must be whole numbers in a row, such as (16, 32); got {values!r}.")
    return tuple(checks.whole(argument, value, least) for value in values)


def _pair(argument: str, values: Any, least: int = 1) -> tuple[int, ...]:
    if len(pair := _whole_numbers(argument, values, least)) != 2:
        raise ValueError(f"{argument} must be two numbers; got {len(pair)}.")
    return pair


def _check_images(x: Tensor, shape: tuple[int | None, ...]) -> None:
    """Refuse a batch that the layers would refuse with a message about matrices."""
    came = tuple(x.shape[1:])
    if len(came) != len(shape) or any(want not in (None, have) for want, have in zip(shape, came, strict=True)):
        wanted = " x ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(f"inputs: the model takes images of {wanted} (channels x height x width); got {came}.")


def _check_ids(ids: Tensor, length: int | None = None) -> None:
    """Refuse what an embedding would refuse with a message about indices, or take without a word."""
    if ids.is_floating_point():
        raise ValueError(f"inputs: the model takes ids of tokens, int64; got {ids.dtype}.")
    if ids.ndim != 2 or (length is not None and ids.shape[1] > length):
        wanted = "any" if length is None else f"up to {length}"
        raise ValueError(f"inputs: the model takes ids [n, {wanted}]; got shape {tuple(ids.shape)}.")
