"""Networks for images and rows of numbers: an MLP, the chapter's ConvNet (repaired), LeNet-5, a small ResNet."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import checks
from kit.models.parts import check_images, initialise, pair, whole_numbers


class MLP(nn.Module):
    """Fully connected layers with ReLU between them: `sizes[0] -> ... -> sizes[-1]`.

    Args:
        sizes: width of each layer, the input's and the classes' included; at least two, each at least 1 (else a
            ValueError). Inputs of any shape are flattened to `sizes[0]` numbers.
        seed: of the first weights, 0 or more.
    """

    def __init__(self, sizes: Sequence[int] = (64, 64, 10), *, seed: int = 0) -> None:
        super().__init__()
        self.sizes = sizes = whole_numbers("sizes", sizes)
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
        height, width = pair("image_size", (image_size, image_size) if one else image_size, 2)  # 2 for the pooling
        first, second = pair("channels", channels)
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
        check_images(x, self.input_shape)
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
        check_images(x, (1, 28, 28))
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
        widths = whole_numbers("widths", widths)
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
        check_images(x, (self.in_channels, None, None))
        x = F.relu(self.stem_bn(self.stem(x)))  # [n, widths[0], h, w]
        x = self.stages(x)  # [n, widths[-1], h', w']
        return self.head(x.mean(dim=(2, 3)))
