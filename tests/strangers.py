"""Small networks as people bring them, for 8 x 8 images: what they do with their channels is seldom a plain chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import models


class By(nn.Module):
    """A module that calls a function; `parts` are the layers that it calls."""

    def __init__(self, how: Callable[[Any, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.how = how
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.how(self, x)


def gated_chunk(net: Any, x: Tensor) -> Tensor:
    p, q = net.a(x.flatten(1)).chunk(2, 1)
    return net.h(p * torch.sigmoid(q))


def gated_slices(net: Any, x: Tensor) -> Tensor:
    z = net.a(x.flatten(1))
    return net.h(z[:, :8] * torch.sigmoid(z[:, 8:]))


def tokens(x: Tensor) -> Tensor:
    """Pairs of rows as four tokens. [n, 1, 8, 8] -> [n, 4, 16]"""
    return x.flatten(1).unflatten(1, (4, 16))


def swiglu(axis: int) -> Callable[[Any, Tensor], Tensor]:
    def forward(net: Any, x: Tensor) -> Tensor:
        gate, value = net.fused(tokens(x)).chunk(2, dim=axis)
        return net.head(net.down(F.silu(gate) * value).mean(1))

    return forward


class Attention(nn.Module):
    """Heads by hand: the view keeps their size or their number, the scale is fixed or (`fused`) that of their size."""

    def __init__(self, by: str = "size", fused: bool = False, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(16, width) for _ in range(3))
        self.o = nn.Linear(width, 16)
        self.shape, self.scale = (-1, width // heads) if by == "size" else (heads, -1), (width // heads) ** -0.5
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).view(*x.shape[:2], *self.shape).transpose(1, 2) for part in (self.q, self.k, self.v))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-1, -2) * self.scale).softmax(-1) @ v
        return self.o(y.transpose(1, 2).flatten(2))


class Fused(nn.Module):
    """One projection for q, k and v, as in a vision transformer."""

    def __init__(self, width: int = 8, heads: int = 2, d: int = 16) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads, self.width = nn.Linear(d, 3 * width), nn.Linear(width, d), heads, width

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, self.width))


class Block(nn.Module):
    """A transformer block; `pre` normalises before each part, as ViT does, and not after it, as BERT."""

    def __init__(self, attention: nn.Module, d: int = 16, wide: int = 32, pre: bool = False) -> None:
        super().__init__()
        self.attention, self.fc1, self.fc2, self.pre = attention, nn.Linear(d, wide), nn.Linear(wide, d), pre
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x: Tensor) -> Tensor:
        if self.pre:
            x = x + self.attention(self.norm1(x))
            return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.fc2(F.gelu(self.fc1(x))))


class Transformer(nn.Module):
    """Tokens, a class token where wanted, blocks and a head."""

    def __init__(self, *blocks: nn.Module, class_token: bool = False, d: int = 16) -> None:
        super().__init__()
        self.embed, self.blocks, self.head = nn.Linear(16, d), nn.ModuleList(blocks), nn.Linear(d, 10)
        self.places = nn.Parameter(torch.randn(1, 5 if class_token else 4, d) * 0.1)
        self.token = nn.Parameter(torch.randn(1, 1, d)) if class_token else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(tokens(x))
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0] if self.token is not None else x.mean(1))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.middle = nn.Conv2d(12, 16, 3, padding=1)
        self.up2, self.join2 = nn.ConvTranspose2d(16, 12, 2, stride=2), nn.Conv2d(24, 12, 3, padding=1)
        self.up1, self.join1 = nn.ConvTranspose2d(12, 8, 2, stride=2), nn.Conv2d(16, 8, 3, padding=1)
        self.out, self.head = nn.Conv2d(8, 4, 1), nn.Linear(4 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.down1(x))
        b = F.relu(self.down2(F.max_pool2d(a, 2)))
        y = F.relu(self.middle(F.max_pool2d(b, 2)))
        y = F.relu(self.join2(torch.cat([self.up2(y), b], 1)))
        y = F.relu(self.join1(torch.cat([a, self.up1(y)], 1)))
        return self.head(self.out(y).flatten(1))


class Dense(nn.Module):
    """Each layer reads all before it (DenseNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(3))
        self.layers = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3))
        self.squeeze, self.head = nn.Conv2d(20, 12, 1), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = torch.cat([x, layer(F.relu(norm(x)))], 1)
        return self.head(F.relu(self.squeeze(x)).mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self, by_convolution: bool) -> None:
        super().__init__()
        kind: Any = (lambda a, b: nn.Conv2d(a, b, 1)) if by_convolution else nn.Linear
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 12, 3)
        self.down, self.up, self.head = kind(8, 4), kind(4, 8), nn.Linear(12, 10)
        self.by_convolution = by_convolution

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        means = x.mean((2, 3), keepdim=self.by_convolution)
        gate = torch.sigmoid(self.up(F.relu(self.down(means))))
        x = x * (gate if self.by_convolution else gate[:, :, None, None])
        return self.head(F.relu(self.b(x)).mean((2, 3)))


def spatial_gate(net: Any, x: Tensor) -> Tensor:
    x = F.relu(net.a(x))
    return net.head(F.relu(net.b(x * torch.sigmoid(net.gate(x)))).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self, kind: Any, **settings: Any) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Linear(8, 12), kind(12, 16, batch_first=True, **settings)
        self.fc, self.head = nn.Linear(32 if settings else 16, 20), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rnn(F.relu(self.embed(x.squeeze(1))))[0]
        return self.head(F.relu(self.fc(y[:, -1])))


class TiedAutoencoder(nn.Module):
    """The decoder is the encoder, transposed; a head reads what was rebuilt."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.head = nn.Linear(64, 24), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        code = F.relu(self.encode(x.flatten(1)))
        return self.head(F.relu(F.linear(code, self.encode.weight.t())))


def shuffled(groups: int = 2) -> nn.Module:
    """ShuffleNet's unit: grouped convolutions, and a channel shuffle between them."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=groups), nn.ChannelShuffle(groups),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 12, 1, groups=groups), nn.ReLU(),
        nn.Conv2d(12, 6, 3), nn.Flatten(), nn.Linear(6 * 36, 10),
    )  # fmt: skip


def separable() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU6(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8),
        nn.ReLU6(), nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip


def side_branch(net: Any, x: Tensor) -> Tensor:
    h = F.relu(net.a(x.flatten(1)))
    net.side(h)
    return net.c(F.relu(net.b(h)))


def tied_pair() -> nn.Module:
    b, c, relu = nn.Linear(16, 16), nn.Linear(16, 16), nn.ReLU()
    c.weight = b.weight
    last = (nn.Linear(16, 24), relu, nn.Linear(24, 10))
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), relu, b, relu, c, relu, *last)


def with_features(net: Any, x: Tensor) -> Any:
    h = F.relu(net.a(x.flatten(1)))
    return {"logits": net.c(F.relu(net.b(h))), "features": h}


def prototypes() -> nn.Module:
    """The answer is a product with a parameter that belongs to no layer."""
    net = By(
        lambda net, x: F.linear(F.relu(net.b(F.relu(net.a(x.flatten(1))))), net.classes),
        a=nn.Linear(64, 24), b=nn.Linear(24, 16),
    )  # fmt: skip
    net.classes = nn.Parameter(torch.randn(10, 16))
    return net


def pooled(*layers: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def mlp_around(middle: nn.Module, width: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), middle, nn.Linear(out, 10))


def weight_normed() -> nn.Module:
    first = nn.utils.parametrizations.weight_norm(nn.Linear(64, 16))
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 10))


def attention_alone(**settings: Any) -> nn.Module:
    return By(
        lambda net, x: net.head(F.relu(net.fc(net.attention(net.embed(tokens(x))))).mean(1)),
        embed=nn.Linear(16, 16), attention=Attention(**settings), fc=nn.Linear(16, 12), head=nn.Linear(12, 10),
    )  # fmt: skip


def multi_head() -> nn.Module:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.rows(tokens(x))
        return net.head(F.relu(net.fc(x + net.attention(x, x, x)[0])).mean(1))

    attention = nn.MultiheadAttention(16, 4, batch_first=True)
    return By(forward, rows=nn.Linear(16, 16), attention=attention, fc=nn.Linear(16, 24), head=nn.Linear(24, 10))


def encoder_layer(**settings: Any) -> nn.Module:
    return Transformer(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **settings))


def dropping(net: Any, x: Tensor) -> Tensor:
    return net.b(F.dropout(F.relu(net.a(x.flatten(1)))))  # in evaluation mode, too: a common slip


STRANGERS: dict[str, Callable[[], nn.Module]] = {
    "chunk": lambda: By(gated_chunk, a=nn.Linear(64, 16), h=nn.Linear(8, 10)),
    "slices": lambda: By(gated_slices, a=nn.Linear(64, 16), h=nn.Linear(8, 10)),
    "glu": lambda: mlp_around(nn.GLU(1), 16, 8),
    "glu convolution": lambda: pooled(nn.Conv2d(1, 16, 3), nn.GLU(1), nn.Conv2d(8, 12, 3), width=12),
    "swiglu": lambda: By(swiglu(-1), fused=nn.Linear(16, 48), down=nn.Linear(24, 16), head=nn.Linear(16, 10)),
    "swiglu by halves": lambda: By(swiglu(2), fused=nn.Linear(16, 48), down=nn.Linear(24, 16), head=nn.Linear(16, 10)),
    "two projections": lambda: By(
        lambda net, x: net.head(net.down(F.silu(net.gate(tokens(x))) * net.up(tokens(x))).mean(1)),
        gate=nn.Linear(16, 24), up=nn.Linear(16, 24), down=nn.Linear(24, 16), head=nn.Linear(16, 10),
    ),
    "maxout": lambda: mlp_around(By(lambda _, x: x.view(len(x), 8, 2).amax(2)), 16, 8),
    "pixel shuffle": lambda: pooled(
        nn.Conv2d(1, 16, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), width=6
    ),
    "channel shuffle": shuffled,
    "separable": separable,
    "group norm of all": lambda: pooled(
        nn.Conv2d(1, 8, 3), nn.GroupNorm(1, 8), nn.ReLU(), nn.Conv2d(8, 6, 3), width=6
    ),
    "u-net": UNet,
    "dense": Dense,
    "resnet": models.ResNet,
    "squeeze": lambda: SqueezeExcite(False),
    "squeeze by convolution": lambda: SqueezeExcite(True),
    "spatial gate": lambda: By(
        spatial_gate, a=nn.Conv2d(1, 8, 3, padding=1), gate=nn.Conv2d(8, 1, 1), b=nn.Conv2d(8, 12, 3),
        head=nn.Linear(12, 10),
    ),
    "heads of a size": attention_alone,
    "a number of heads": lambda: attention_alone(by="number"),
    "heads that scale themselves": lambda: attention_alone(by="number", fused=True),
    "bert": lambda: Transformer(Block(Attention()), Block(Attention())),
    "vit": lambda: Transformer(Block(Fused(), pre=True), Block(Fused(), pre=True), class_token=True),
    "encoder layer": encoder_layer,
    "encoder layer, norm first": lambda: encoder_layer(norm_first=True),
    "multi-head": multi_head,
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "lstm, two layers, both ways": lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
    "tied autoencoder": TiedAutoencoder,
    "tied pair": tied_pair,
    "side branch": lambda: By(
        side_branch, a=nn.Linear(64, 16), side=nn.Linear(16, 4), b=nn.Linear(16, 12), c=nn.Linear(12, 10)
    ),
    "features, too": lambda: By(with_features, a=nn.Linear(64, 24), b=nn.Linear(24, 16), c=nn.Linear(16, 10)),
    "prototypes": prototypes,
    "computed weight": weight_normed,
    "always dropping": lambda: By(dropping, a=nn.Linear(64, 16), b=nn.Linear(16, 10)),
}  # fmt: skip
