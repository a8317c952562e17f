"""A smaller model back from its file, into the class that it had before it was pruned."""

from __future__ import annotations

import os

from torch import nn

from kit import checks, files
from kit.prune import joints
from kit.prune.plain import plain


def load_smaller(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """A copy of `model` with the weights of a file, its layers cut to the sizes that they have there.

    So a model whose channels were removed needs no class of its own: build the original one, with any weights, and give
    the file that `files.write` made of the smaller one.

    Args:
        model: the original model, as it was built before pruning; not changed.
        path: of a weights file, sparse or dense.

    Raises:
        ValueError: the file does not come from a smaller one of `model`: names differ, something is larger there, or
            a group normalisation has no weights to say its size.
        TypeError: `model` is no model, or `path` is no path.
        FileNotFoundError, IsADirectoryError, files.WeightsFileError: as for `files.read`.
    """
    checks.instance("model", model, nn.Module, "a model (nn.Module)")
    shapes = {name: tensor.shape for name, tensor in files.read(path).items()}
    smaller = joints.resized(plain(model), shapes)
    files.load_into(smaller, path)
    return smaller.train(model.training)
