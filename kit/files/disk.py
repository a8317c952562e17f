"""Weights files on disk: written all or nothing, read, and loaded into a model only where nothing is lost."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kit import checks
from kit.files.container import WeightsFileError, checked, decode, encode, tied_names


def write(state: nn.Module | Mapping[str, Tensor], path: str | os.PathLike[str], *, sparse: bool) -> int:
    """Write a weights file, all or nothing, and return its size in bytes.

    The bytes go to a temporary file in the same folder, which then takes the place of `path` in one step, with the
    permissions of the older file there. A symbolic link stays one: the file that it leads to is replaced. If anything
    fails, an older file stays as it was. `state` and `sparse` are those of `encode`.

    Raises:
        FileNotFoundError: the folder of `path`, or of what it links to, does not exist.
        IsADirectoryError: `path` is a folder.
        PermissionError: `path` or its folder is write-protected.
        OSError: `path` is a device, or a link to itself; or the disk is full.
        TypeError: `path` is no path; or as for `encode`.
        ValueError: as for `encode`.
    """
    return put(lambda: encode(state, sparse=sparse), path)


def put(make: Callable[[], bytes], path: str | os.PathLike[str]) -> int:
    """Write the bytes that `make` returns, in the way and with the errors of `write`; the path is looked at first."""
    path = _no_folder(path)
    target = Path(os.path.realpath(path))  # through links, so that they stay
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path {path} is in a folder that does not exist: make {target.parent} first.")
    mode = target.lstat().st_mode if os.path.lexists(target) else None
    if mode is not None and not stat.S_ISREG(mode):
        raise OSError(f"path {path} is a device, or a link to itself: give the name of an ordinary file.")
    if mode is not None and not os.access(target, os.W_OK):  # replacing would ask for the folder's permission only
        raise PermissionError(f"path {path} is write-protected: allow writing with chmod, or choose another name.")
    data = make()
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")  # as short for a long name
    try:
        with temporary.open("xb") as file:
            if mode is not None:
                temporary.chmod(stat.S_IMODE(mode))  # before there is anything to read
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # on the disk before it takes the old file's place
        temporary.replace(target)
    except OSError as error:
        failed = f"path {path} cannot be written ({error.strerror or error}) and stays as it was"
        raise OSError(error.errno, f"{failed}: free some space, or choose another folder.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return len(data)


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of the weights file at `path`, by name, on the CPU.

    Raises:
        FileNotFoundError: there is no such file, or `path` links to none.
        IsADirectoryError: `path` is a folder.
        TypeError: `path` is no path.
        WeightsFileError: as for `decode`; the sentence names the path.
    """
    return get(decode, path)


def get(parse: Callable[[bytes], dict[str, Tensor]], path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return what `parse` makes of the bytes at `path`, with the errors of `read`."""
    path = _no_folder(path)
    if not path.exists():
        absent = f"links to {os.path.realpath(path)}, which does not" if path.is_symlink() else "does not"
        raise FileNotFoundError(f"path {path} {absent} exist: check the name, or write the file first.")
    try:
        return parse(path.read_bytes())
    except WeightsFileError as error:
        raise WeightsFileError(f"Cannot read {path}: {error}") from error


def load_into(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Copy the weights of the file at `path` into `model`, in place.

    The model keeps its dtypes. A tensor of another dtype is converted where no value changes: 1 becomes 1.0.

    Raises:
        ValueError: names or shapes of the file and the model differ, a value does not fit the model's dtype, or the
            model ties two tensors that differ in the file. The model is then unchanged.
        TypeError: `model` is no model, or `path` is no path.
        FileNotFoundError, IsADirectoryError, WeightsFileError: as for `read`.
    """
    fill(model, path, read)


def fill(model: nn.Module, path: str | os.PathLike[str], reading: Callable[[Any], dict[str, Tensor]]) -> None:
    """Copy what `reading` returns for `path` into `model`, in place, with the errors of `load_into`."""
    checks.instance("model", model, nn.Module, "a model (nn.Module)")
    state, own = reading(path), checked(model)
    stored, wanted = ({name: tuple(tensor.shape) for name, tensor in of.items()} for of in (state, own))
    for name in sorted(stored.keys() | wanted.keys()):
        there, here = stored.get(name, "absent"), wanted.get(name, "absent")
        if there != here:
            which = f"tensor {name!r} is {there} in the file and {here} in the model"
            way = (
                "build the model with the file's layer sizes; where channels were removed, prune.load_smaller does that"
            )
            raise ValueError(f"model does not fit {path}: {which}; {way}.")
        if not _same(state[name], state[name].to(own[name].dtype)):
            change = f"tensor {name!r} holds values of {state[name].dtype} that {own[name].dtype} cannot hold"
            raise ValueError(f"model does not fit {path}: {change}; convert the model first, with .to(...).")
    for name, kept in tied_names(own).items():
        if not _same(state[name], state[kept]):
            apart = f"tensors {kept!r} and {name!r} differ in the file and are one in the model"
            raise ValueError(f"model does not fit {path}: {apart}; build the model without tying them.")
    model.load_state_dict(state)


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether both hold the same numbers, of whatever dtype; NaN is the same as NaN."""
    if one is other:
        return True
    nan = one.isnan()
    if not torch.equal(nan, other.isnan()):
        return False
    return one[~nan].tolist() == other[~nan].tolist()  # torch would round whole numbers first, Python does not


def _no_folder(path: str | os.PathLike[str]) -> Path:
    checks.instance("path", path, (str, os.PathLike), "a path: text, or a Path")
    if Path(path).is_dir():
        raise IsADirectoryError(f"path {path} is a folder: give the name of a weights file in it.")
    return Path(path)
