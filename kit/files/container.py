"""The bytes of a weights file: plain safetensors, or the sparse format, which is smaller when weights are zero.

A dense file is ordinary safetensors: any tool reads it. Zeros cost as much there as any other number.

A sparse file holds the non-zero values, and for each the gap to the neighbour before, in one byte, as Deep Compression
does (Han et al. 2016, arXiv:1510.00149, section 2). A gap too long for one byte is bridged by filler zeros. A float32
weight that is not zero then costs 5 bytes, and a zero costs nothing, apart from the fillers.

The container is safetensors, so its tools can list it: 8 bytes with the length of the header (unsigned, little-endian),
the header (JSON: name, dtype, shape and offsets of each part, and `__metadata__`), and the parts, one after the other:

| part           | what                                                                                     |
|----------------|------------------------------------------------------------------------------------------|
| `NAME#values`  | k values of tensor NAME, in its dtype, in row-major order, with the filler zeros         |
| `NAME#gaps`    | k bytes: how many zeros stand between this value and the one before it, 0 to 255         |
| `NAME#dense`   | tensor NAME as it is, where the two parts above would not be smaller                     |

`__metadata__` has one key, `kit`, a JSON text with these entries: `format` ("sparse" or "dense"), `version`, `shapes`
(name to shape, for each tensor kept as values and gaps), `tied` (name to another name, which shares its memory and is
stored for both), and `crc32` (over all parts and the other entries). In a dense file the parts carry the plain names.

Example, one row: `0 0 7 0 0 ... (600 zeros) ... 0 5` is stored as values `7 0 0 5`, gaps `2 255 255 88`.
Each pair moves the position on by its gap and one more: 2, then 258, 514, 603.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from kit import checks

FORMAT_VERSION: Final = 1
_LONGEST_GAP: Final = 255  # the largest number in one byte
_HEADER_ALLOWANCE: Final = 100  # bytes: a sparse tensor needs a second header entry and its shape
_SPARSE_DTYPES: Final = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_OTHER_DTYPES: Final = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
_ORDER: Final = (  # of the parts in a file, from the last: that of safetensors
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16, torch.bfloat16, torch.int32, torch.float32),
    *(torch.float64, torch.int64),
)
_WORDS: Final = dict(zip(_ORDER, ("BOOL", "U8", "I8", "I16", "F16", "BF16", "I32", "F32", "F64", "I64"), strict=True))


class WeightsFileError(RuntimeError):
    """A weights file cannot be read: not one, damaged, or written by a newer kit."""


def pack(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Return the non-zero values of a flat tensor [n], and the gaps between them.

    Returns:
        values [k], dtype of `flat`, and gaps [k], uint8, where k counts the non-zero values and the fillers.

    Raises:
        TypeError: `flat` is no tensor.
        ValueError: it has another shape.
    """
    checks.instance("flat", flat, Tensor)
    if flat.ndim != 1:
        raise ValueError(f"flat must have one dimension, not {flat.ndim}: pass tensor.reshape(-1).")
    positions = torch.nonzero(flat).flatten()  # [non-zeros], increasing
    zeros_before = torch.diff(positions, prepend=positions.new_tensor([-1])) - 1  # [non-zeros]
    fillers = zeros_before >> 8  # divided by 256: a filler bridges 255 zeros and is itself one more
    place = torch.cumsum(fillers + 1, dim=0) - 1  # [non-zeros], where each value stands among the fillers
    k = int(place[-1]) + 1 if len(place) else 0
    values = flat.new_zeros(k)
    gaps = torch.full((k,), _LONGEST_GAP, dtype=torch.uint8)
    values[place] = flat[positions]
    gaps[place] = (zeros_before & _LONGEST_GAP).to(torch.uint8)  # the rest of that division
    return values, gaps


def unpack(values: Tensor, gaps: Tensor, n: int) -> Tensor:
    """Return the flat tensor [n] that `pack` was given.

    Args:
        values: [k], the non-zero values and the fillers.
        gaps: [k], uint8, how many zeros stand before each value.
        n: number of elements of the flat tensor.

    Raises:
        TypeError: an argument of another kind.
        ValueError: values and gaps do not belong together, or point outside the n elements.
    """
    checks.whole("n", n)
    checks.instance("values", values, Tensor)
    checks.instance("gaps", gaps, Tensor)
    if values.ndim != 1 or gaps.shape != values.shape or gaps.dtype != torch.uint8:
        came = f"shapes {tuple(values.shape)} and {tuple(gaps.shape)}, gaps in {gaps.dtype}"
        raise ValueError(f"values and gaps must be two equally long rows, gaps in uint8; got {came}.")
    positions = torch.cumsum(gaps.to(torch.int64) + 1, dim=0) - 1
    if len(positions) and int(positions[-1]) >= n:
        raise ValueError(f"the gaps lead to position {int(positions[-1])}, but the tensor has {n} elements.")
    flat = values.new_zeros(n)
    flat[positions] = values  # a filler writes a zero where a zero is
    return flat


def encode(state: nn.Module | Mapping[str, Tensor], *, sparse: bool) -> bytes:
    """Return the bytes of a weights file.

    The same state always gives the same bytes. Tensors that share all their memory (tied weights) are stored once.
    `decode` gives tensors that are equal to the given ones (-0.0 in a sparse tensor comes back as 0.0, NaN as NaN).

    Args:
        state: a model, or its state dict: names to tensors of any shape. Float tensors (64, 32, 16 bits,
            bfloat16) may become sparse; integers and bool are stored as they are.
        sparse: True for the kit's sparse format, False for plain safetensors.

    Raises:
        TypeError: `state` holds something other than tensors, or is neither a model nor a mapping.
        ValueError: a tensor is of a kind that cannot be stored (quantised, sparse layout, meta device).
    """
    parts, about = _parts(checked(state), sparse)
    # Each a copy of its own: safetensors refuses views that overlap.
    parts = {name: part.clone(memory_format=torch.contiguous_format) for name, part in parts.items()}
    return safetensors.torch.save(parts, {"kit": json.dumps(about, separators=(",", ":"))})


def length(state: nn.Module | Mapping[str, Tensor], *, sparse: bool) -> int:
    """Return the length of the file that `encode` would make, and make all of its parts, but never the whole.

    Each part is read back and compared, tensor by tensor. So a large model is not in memory once more.

    Raises:
        RuntimeError: what was read back differs (never seen; it would mean a broken format).
        TypeError, ValueError: as for `encode`.
    """
    tensors = checked(state)
    parts, about = _parts(tensors, sparse)
    for name, shape in about["shapes"].items():
        back = unpack(parts[f"{name}#values"], parts[f"{name}#gaps"], math.prod(shape)).view(shape)
        if not torch.equal(torch.nan_to_num(back), torch.nan_to_num(tensors[name].cpu())):
            raise RuntimeError(f"the part written for {name} does not read back equal.")
    header: dict[str, Any] = {"__metadata__": {"kit": json.dumps(about, separators=(",", ":"))}}
    end = 0
    for name in sorted(parts, key=lambda name: (-_ORDER.index(parts[name].dtype), name)):
        begin, end = end, end + parts[name].numel() * parts[name].element_size()
        entry = {"dtype": _WORDS[parts[name].dtype], "shape": list(parts[name].shape), "data_offsets": [begin, end]}
        header[name] = entry
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + -(-len(text) // 8) * 8 + end


def _parts(tensors: dict[str, Tensor], sparse: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The parts of a file, and what stands in its `__metadata__`; dense parts are the tensors themselves."""
    checks.instance("sparse", sparse, bool, "True or False")
    parts: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    tied = tied_names(tensors)
    for name, tensor in tensors.items():
        if name in tied:
            continue
        if sparse and (packed := _pack_if_smaller(tensor)):
            parts[f"{name}#values"], parts[f"{name}#gaps"] = packed
            shapes[name] = list(tensor.shape)
        else:
            parts[f"{name}#dense" if sparse else name] = tensor.cpu().contiguous()
    kind = "sparse" if sparse else "dense"
    about: dict[str, Any] = {"format": kind, "version": FORMAT_VERSION, "shapes": shapes, "tied": tied}
    about["crc32"] = checksum(parts, about)
    return parts, about


def decode(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a weights file, by name, on the CPU.

    Reads what `encode` wrote, sparse or dense, and plain safetensors of any other origin. Never unpickles.

    Raises:
        TypeError: `data` is not bytes.
        WeightsFileError: the bytes are not a weights file, are damaged, or come from a newer kit.
    """
    checks.instance("data", data, bytes, "bytes (to read a path, call read)")
    about = _about(data)
    try:
        parts = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise _damaged(f"its table of contents does not fit its bytes ({error})") from error
    if about is None:  # written by another tool
        if any(name.endswith("#gaps") for name in parts):
            raise _damaged("it has parts of the kit's sparse format, but not their description")
        return parts
    if about.pop("crc32") != checksum(parts, about):
        raise _damaged("its checksum is wrong, so at least one byte has changed")
    state = parts if about["format"] == "dense" else _join(parts, about["shapes"])
    for name, kept in about["tied"].items():
        if not isinstance(kept, str) or kept not in state or name in state:
            raise _damaged(f"tensor {name!r} is tied to {kept!r}, which does not fit")
        state[name] = state[kept]
    return state


def checked(state: Any) -> dict[str, Tensor]:
    """Return the tensors of a model or a state dict by name, or refuse what cannot be stored, as `encode` does."""
    if isinstance(state, nn.Module):
        state = state.state_dict()
    checks.instance("state", state, Mapping, "a model, or map names to tensors")
    for name, tensor in state.items():
        checks.instance("each name in state", name, str, "text")
        checks.instance(f"state[{name!r}]", tensor, Tensor, "a tensor (leave it out, or convert it)")
        if name == "__metadata__":
            raise ValueError("state must not use the name '__metadata__': safetensors keeps it for itself.")
        if tensor.layout is not torch.strided or tensor.is_meta:
            where = f"{tensor.layout}, device {tensor.device}"
            raise ValueError(f"state[{name!r}] has no plain memory ({where}): make it dense first.")
        if tensor.dtype not in _SPARSE_DTYPES + _OTHER_DTYPES:
            allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in _SPARSE_DTYPES + _OTHER_DTYPES)
            raise ValueError(f"state[{name!r}] has dtype {tensor.dtype}; allowed are {allowed}.")
    return {name: tensor.detach() for name, tensor in state.items()}


def tied_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return which tensors share all their memory with an earlier one: name to the earlier name."""
    seen: dict[object, str] = {}
    memory = {name: (t.data_ptr(), t.dtype, t.shape, t.stride()) for name, t in state.items() if t.numel()}
    return {name: seen[key] for name, key in memory.items() if seen.setdefault(key, name) != name}


def _pack_if_smaller(tensor: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return values and gaps of the tensor, or None where they would not be smaller than the tensor."""
    budget = tensor.numel() * tensor.element_size() - _HEADER_ALLOWANCE
    cost = tensor.element_size() + 1  # bytes for one value with its gap
    if tensor.dtype not in _SPARSE_DTYPES:
        return None
    flat = tensor.cpu().reshape(-1)
    if int(torch.count_nonzero(flat)) * cost >= budget:  # counting is much cheaper than packing
        return None
    values, gaps = pack(flat)
    return (values, gaps) if len(gaps) * cost < budget else None


def _join(parts: dict[str, Tensor], shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for part, tensor in parts.items():
        name, _, kind = part.rpartition("#")
        if kind == "dense" and name not in shapes:
            state[name] = tensor
        elif kind not in ("values", "gaps") or name not in shapes:
            raise _damaged(f"its part {part!r} belongs to no tensor")
    for name, shape in shapes.items():
        if f"{name}#values" not in parts or f"{name}#gaps" not in parts:
            raise _damaged(f"the values or the gaps of tensor {name!r} are missing")
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise _damaged(f"tensor {name!r} has the impossible shape {shape!r}")
        try:
            flat = unpack(parts[f"{name}#values"], parts[f"{name}#gaps"], math.prod(shape))
        except ValueError as error:
            raise _damaged(f"in tensor {name!r}, {error}".rstrip(".")) from error
        except (RuntimeError, TypeError) as error:  # torch has no memory for it, or no number
            raise _damaged(f"tensor {name!r} has the impossible shape {shape!r}") from error
        state[name] = flat.reshape(shape)
    return state


def _about(data: bytes) -> dict[str, Any] | None:
    """Return what the kit wrote about the file, checked, or None where another tool wrote it."""
    if data[8:9] != b"{":
        pickled = data.startswith((b"PK", b"\x80"))  # torch.save writes a zip archive with a pickle inside
        hint = " It looks like torch.save. The kit never unpickles: load it yourself, then write() it." * pickled
        hint += " It is a compressed file: call compress.read." * data.startswith(b"KITz")
        no_file = f"This is no weights file ({len(data)} bytes): give a safetensors file."
        raise WeightsFileError(no_file + hint)
    length = int.from_bytes(data[:8], "little")
    try:
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
        if "kit" not in metadata:
            return None
        about = json.loads(metadata["kit"])
        kinds, version = {key: type(value) for key, value in about.items()}, about.get("version")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged("its header cannot be read") from error
    if type(version) is int and version > FORMAT_VERSION:
        newer = f"This file has format version {version}, this kit reads up to {FORMAT_VERSION}"
        raise WeightsFileError(f"{newer}: update the kit.")
    known = {"format": str, "version": int, "shapes": dict, "tied": dict, "crc32": int}
    if kinds != known or version != FORMAT_VERSION or about["format"] not in ("sparse", "dense"):
        raise _damaged("its description is not one that the kit writes")
    return about


def checksum(parts: Mapping[str, Tensor], about: Mapping[str, Any]) -> int:
    """Return the CRC-32 over the description and all parts, in the order of their names."""
    crc = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name in sorted(parts):
        tensor = parts[name]
        crc = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


def _damaged(reason: str) -> WeightsFileError:
    return WeightsFileError(f"This weights file is damaged, {reason}: fetch it again, or write it again.")
