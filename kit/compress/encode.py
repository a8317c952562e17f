"""The bytes of a compressed model: codebooks, gaps and Huffman codes, and a ledger of where the bytes are.

Nothing is lost: `decode(encode(model).data)` is the state dict again, bit for bit (-0.0 may come back as 0.0 where a
tensor is not stored raw). Each tensor is stored in the way that takes the fewest bytes:

| way      | of the tensor is stored                                                                                   |
|----------|-----------------------------------------------------------------------------------------------------------|
| raw      | its numbers, in the smallest floating-point dtype that holds them all exactly                             |
| coded    | its different numbers once, in a codebook, and for each element which of them it is: a code               |
| sparse   | for each element that is not 0 how many zeros stand before it, a gap, and its number, plain or as a code  |
| on grid  | as coded or sparse, with small whole numbers for its numbers, and the step, or steps, that they multiply  |

Codes and gaps are numbers below k, stored one after the other as bits: as Huffman codes (`kit.compress.huffman`), whose
table then stands in the file, or with a fixed width where that, without a table, is shorter. It is the encoding of
Deep Compression (Han et al. 2016, arXiv:1510.00149, sections 2 and 4), with one change: a gap too long for its bits is
bridged by a filler that has no number (there a stored zero), and the end of the tensor has a gap before it, too. So the
length of a tensor follows from its bits, and a false shape is found before there is memory for it.

The file, numbers little-endian:

| bytes | what                                                                                                         |
|-------|--------------------------------------------------------------------------------------------------------------|
| 4     | `KITz`                                                                                                       |
| 1     | version of the format                                                                                        |
| 4     | CRC-32 of all other bytes                                                                                    |
|       | header: JSON, deflated (RFC 1951)                                                                            |
|       | tables: the code lengths of all Huffman codes, a byte a word, deflated as one                                |
|       | codebooks: their numbers, tensor by tensor                                                                   |
|       | gaps: bits, tensor by tensor, each beginning with a new byte                                                 |
|       | values: bits of codes, or the plain numbers of a sparse tensor, each tensor beginning with a new byte        |
|       | raw: the numbers of raw tensors                                                                              |

The header is `[[bytes of tables, of codebooks, of gaps, of values, of raw], [tensor, tensor, ...]]`. A tensor is one of

    [name, number of the tensor that has the same memory]
    [name, dtype, shape, dtype as stored]                                                          raw
    [name, dtype, shape, dtype as stored, k, values have a table, b, gaps, gaps have a table]      coded, sparse
    [the same, and the dtype of the steps, axis]                                                   on grid

with k numbers in the codebook (0: none, plain numbers), b bits a gap (0: not sparse). A gap of 2^b - 1 is a filler: so
many zeros, and no number after them. Steps follow the codebook: one for each place along the axis, or one for all (-1).

Example: the float32 row `0 0 7 0 0 0 0 5 7 0`, b = 2. Its codebook is `5 7`, in float16; its gaps are 2, 3 (a filler),
1, 0, and 1 before the end; its codes are 1 0 1. With a fixed width the gaps are the bits `10 11 01 00 01`, the codes
`1 0 1`: `["w","f32",[10],"f16",2,0,2,5,0]`, and 4 bytes of codebook, 2 of gaps, 1 of values.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from threading import Event
from typing import Any, Final

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray
from torch import Tensor, nn

from kit import checks, measure, sizes
from kit.compress import huffman as huffman_code
from kit.compress.quantise import grid
from kit.data import Split
from kit.files import WeightsFileError, disk
from kit.files.container import checked, tied_names

FORMAT_VERSION: Final = 1
MAGIC: Final = b"KITz"
_FRONT: Final = 9  # bytes before the header
_SECTIONS: Final = ("tables", "codebooks", "gaps", "values", "raw")  # in the order of the file
_DTYPES: Final = {
    **{"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "bool": torch.bool},
    **{"i64": torch.int64, "i32": torch.int32, "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8},
}
_SMALLER: Final = {"f64": ("f16", "bf16", "f32"), "f32": ("f16", "bf16")}  # where a dtype's numbers may fit
_BOOK: Final = 4096  # most numbers in a codebook
_PART: Final = 1 << 18  # numbers that are tried at once
_LOOK: Final = 1 << 16  # numbers of a tensor that are looked at first
_GAP_BITS: Final = range(2, 9)
Bytes = bytes | memoryview
_INFLATION: Final = 100  # most bytes that a deflated byte becomes: a small file must not ask for much memory


@dataclass(frozen=True)
class Ledger:
    """Where the bytes of a file are; their sum is its length.

    Attributes:
        values: codes, or plain numbers, of the elements that are not raw.
        gaps: where the elements of sparse tensors stand.
        codebooks: the numbers that the codes mean.
        tables: lengths of the Huffman codes, deflated.
        header: names, shapes, checksum.
        raw: tensors stored as they are.
    """

    values: int
    gaps: int
    codebooks: int
    tables: int
    header: int
    raw: int

    @property
    def total(self) -> int:
        """The length of the file."""
        return sum(getattr(self, each.name) for each in fields(self))


@dataclass(frozen=True)
class Encoded:
    """A compressed model: the bytes of its file, and where they are."""

    data: bytes
    ledger: Ledger


def encode(state: nn.Module | Mapping[str, Tensor], *, huffman: bool = True) -> Encoded:
    """Return the compressed file of a model, and its ledger.

    The same state always gives the same bytes. Tensors that share all their memory are stored once.

    Args:
        state: a model, or its state dict: names to tensors of any shape, and of the dtypes that `files.encode` takes.
        huffman: False stores all codes and gaps with a fixed width.

    Raises:
        TypeError, ValueError: as for `files.encode`.
    """
    entries: list[list[Any]] = []
    sections: list[list[Bytes]] = [[] for _ in _SECTIONS]
    for entry, parts in _written(checked(state), huffman):
        entries.append(entry)
        for section, part in zip(sections, parts, strict=True):
            section.append(part)
    sections[0] = [_deflate(b"".join(sections[0]))]
    lengths = [sum(map(len, section)) for section in sections]
    header = _header(lengths, entries)
    front, rest = MAGIC + bytes([FORMAT_VERSION]), [header, *itertools.chain(*sections)]
    data = b"".join([front, _checksum(front, *rest), *rest])  # once: a large model's file is large, too
    return Encoded(data, _ledger(lengths, header))


def ledger(state: nn.Module | Mapping[str, Tensor], *, huffman: bool = True) -> Ledger:
    """Return the ledger of the file that `encode` would make, without the file.

    All of its bytes are made, read back and compared, but tensor by tensor, and then forgotten. So a large model is not
    in memory once more.

    Raises:
        RuntimeError: what was read back differs (never seen; it would mean a broken format).
        TypeError, ValueError: as for `encode`.
    """
    tensors = checked(state)
    entries: list[list[Any]] = []
    tables, others = b"", [0] * (len(_SECTIONS) - 1)
    for entry, parts in _written(tensors, huffman):
        entries.append(entry)
        if len(entry) > 2:
            reader = _Reader(*(_Section(memoryview(part)) for part in parts))
            _check_back(entry[0], tensors[entry[0]], reader.parts(*entry[1:]))
            reader.finish()
        tables += parts[0]
        others = [size + len(part) for size, part in zip(others, parts[1:], strict=True)]
    lengths = [len(_deflate(tables)), *others]
    return _ledger(lengths, _header(lengths, entries))


def _check_back(name: str, tensor: Tensor, parts: Iterable[Tensor]) -> None:
    """Refuse, as `sizes.check_back`, what was read back of a tensor, part by part."""
    flat, at = tensor.cpu().reshape(-1), 0
    for part in parts:
        sizes.check_back({name: flat[at : at + len(part)]}, {name: part})
        at += len(part)
    if at < len(flat):
        raise RuntimeError(f"the file written for {name} gives back {at} of {len(flat)} elements.")


def _ledger(lengths: Sequence[int], header: bytes) -> Ledger:
    return Ledger(**dict(zip(_SECTIONS, lengths, strict=True)), header=_FRONT + len(header))


def _header(lengths: Sequence[int], entries: Sequence[Sequence[Any]]) -> bytes:
    return _deflate(json.dumps([lengths, entries], separators=(",", ":")).encode())


def _written(tensors: Mapping[str, Tensor], huffman: bool) -> Iterator[tuple[list[Any], list[Bytes]]]:
    """For each tensor what the header says of it, and its bytes for each section (tables not deflated)."""
    checks.instance("huffman", huffman, bool, "True or False")
    nothing: list[Bytes] = [b""] * len(_SECTIONS)
    # No loop, whose variables would keep the codes of a large tensor while the next one is coded.
    return itertools.starmap(lambda entry, way: (entry, way.sections if way else nothing), _plan(tensors, huffman))


def rivals(state: nn.Module | Mapping[str, Tensor]) -> dict[str, int]:
    """Return how many bytes others need for the same content: name to bytes.

    "zlib" (level 9) and "zstd" (level 22) compress the tensors as they are; "zlib, symbols" and "zstd, symbols" the
    numbers that are coded here, a byte each (two for more than 256), and the codebooks and raw tensors. "entropy" is
    the bound for codes of single symbols: their entropy, and codebooks and raw tensors, without a table or a header.
    Errors as for `encode`.
    """
    tensors = checked(state)
    ways = [way for _, way in _plan(tensors, True) if way]
    tied = tied_names(tensors)
    plain = b"".join(_bits(tensor.cpu()).tobytes() for name, tensor in tensors.items() if name not in tied)
    streams = [stream for way in ways for stream in (way.gaps, way.codes) if stream]
    rest = b"".join(part for way in ways for part in (way.book, way.steps, way.plain, way.raw))
    symbols = rest + b"".join(
        stream.symbols.astype(np.uint8 if len(stream.code.lengths) <= 256 else "<u2").tobytes() for stream in streams
    )
    bound = sum(len(each.symbols) * huffman_code.entropy(np.bincount(each.symbols)) for each in streams) / 8
    found = {"entropy": len(rest) + math.ceil(bound)}
    for words, content in (("", plain), (", symbols", symbols)):
        found["zlib" + words] = len(zlib.compress(content, 9))
        found["zstd" + words] = len(zstandard.ZstdCompressor(level=22).compress(content))
    return found


def file_bytes(model: nn.Module) -> int:
    """Return the length of the compressed file of `model`, decoded again and found equal; as `measure.file_bytes`."""
    return sizes.file_bytes(model, lambda state: encode(state).data, decode)


def profile(model: nn.Module, split: Split, *, batch_size: int = 1, cancel: Event | None = None) -> measure.Profile:
    """Measure everything about `model`, with the compressed file as its file; arguments as for `measure.profile`."""
    found = measure.profile(model, split, batch_size=batch_size, cancel=cancel)
    return replace(found, file_bytes=file_bytes(model))


def _plan(tensors: Mapping[str, Tensor], huffman: bool) -> Iterator[tuple[list[Any], _Way | None]]:
    """For each tensor what the header says of it, and the best way to store it, if it is stored."""
    places = {name: place for place, name in enumerate(tensors)}
    tied = tied_names(tensors)
    for name, tensor in tensors.items():
        yield ([name, places[tied[name]]], None) if name in tied else _best(name, tensor, huffman)


def _best(name: str, tensor: Tensor, huffman: bool) -> tuple[list[Any], _Way]:
    way = min(_ways(tensor, huffman), key=lambda way: way.cost)
    return [name, _word(tensor.dtype), list(tensor.shape), *way.entry], way


@dataclass(frozen=True)
class _Code:
    """A Huffman code, with its table, or one of fixed width, which needs none."""

    lengths: huffman_code.Whole
    tabled: bool
    cost: int  # bytes, of the table too


@dataclass(frozen=True)
class _Stream:
    """Symbols and their code."""

    symbols: NDArray[Any]
    code: _Code

    @property
    def bits(self) -> memoryview:
        return huffman_code.in_bits(self.symbols, self.code.lengths)


@dataclass(frozen=True)
class _Way:
    """One way to store a tensor."""

    stored: str
    tensor: Tensor | None = None  # of a raw one
    plain: bytes = b""
    book: bytes = b""
    codes: _Stream | None = None
    gap_bits: int = 0
    gaps: _Stream | None = None
    steps: bytes = b""
    steps_entry: tuple[Any, ...] = ()

    @property
    def cost(self) -> int:
        if self.tensor is not None:
            return self.tensor.numel() * _DTYPES[self.stored].itemsize
        streams = sum(stream.code.cost for stream in (self.codes, self.gaps) if stream)
        return len(self.plain) + len(self.book) + len(self.steps) + streams + 2 * len(self.entry[1:])

    @property
    def raw(self) -> Bytes:
        """The numbers of a raw tensor; of a large one that is stored in its own dtype this is no copy."""
        return b"" if self.tensor is None else _bits(self.tensor.to(_DTYPES[self.stored])).view(np.uint8).data

    @property
    def sections(self) -> list[Bytes]:
        """Its bytes, for each of `_SECTIONS`."""
        values = self.codes.bits if self.codes else self.plain
        return [self.tables, self.book + self.steps, self.gaps.bits if self.gaps else b"", values, self.raw]

    @property
    def entry(self) -> list[Any]:
        """What the header says of it, after name, dtype and shape."""
        codes, gaps = self.codes, self.gaps
        if self.tensor is not None:
            return [self.stored]
        k, tabled = (len(codes.code.lengths), int(codes.code.tabled)) if codes else (0, 0)
        runs = (self.gap_bits, len(gaps.symbols), int(gaps.code.tabled)) if gaps else (0, 0, 0)
        return [self.stored, k, tabled, *runs, *self.steps_entry]

    @property
    def tables(self) -> bytes:
        codes = (stream.code for stream in (self.codes, self.gaps) if stream and stream.code.tabled)
        return b"".join(code.lengths.astype(np.uint8).tobytes() for code in codes)


@dataclass(frozen=True)
class _Numbers:
    """A large tensor's elements as whole numbers with the same bits, part by part, each made when it is asked for."""

    flat: Tensor  # [n]
    kind: torch.dtype

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for part in self.flat.split(_PART):
            numbers = _bits(part.to(self.kind))
            if self.kind.is_floating_point and (minus := numbers == 1 << (8 * numbers.itemsize - 1)).any():
                numbers = np.where(minus, 0, numbers)  # -0.0
            yield numbers


def _ways(tensor: Tensor, huffman: bool) -> Iterator[_Way]:
    tensor = tensor.cpu()
    stored = _smallest(tensor)
    yield (raw := _Way(_word(stored), tensor))
    if tensor.numel():
        yield from _coded(_Way(_word(stored)), _Numbers(tensor.reshape(-1), stored), raw.cost, huffman)
    if found := grid(tensor):
        steps = found.steps.to(_smallest(found.steps))
        axis = -1 if found.axis is None else found.axis
        low, high = map(int, found.codes.aminmax())
        codes = found.codes.to(torch.int8) if max(-low, high) <= 127 else found.codes
        del found  # of a large tensor the room is needed
        on_grid = _Way(_word(codes.dtype), steps=_bits(steps).tobytes(), steps_entry=(_word(steps.dtype), axis))
        yield from _coded(on_grid, _Numbers(codes.reshape(-1), codes.dtype), raw.cost, huffman)


def _coded(way: _Way, elements: _Numbers, limit: int, huffman: bool) -> Iterator[_Way]:
    """Fill `way` with the numbers [n], as codes and as gaps; 0 is their zero; as codes below `limit` bytes alone."""
    n = len(elements.flat)
    parts: Iterable[NDArray[Any]] = elements if n > _PART else list(elements)
    first = next(iter(parts))
    book = codes = None
    if len(np.unique(first[:_LOOK])) <= _BOOK:  # most large tensors need no more to be seen to have no codebook
        book = first[:0]
        for part in parts:  # sorted all at once they would be in memory once more
            ordered = np.sort(np.concatenate([book, part]))  # much faster than np.unique
            book = np.concatenate([ordered[:1], ordered[1:][ordered[1:] != ordered[:-1]]])
            if len(book) > _BOOK:
                break
    if book is not None and len(book) <= _BOOK:
        codes = np.empty(n, np.min_scalar_type(len(book)))
        for at, part in enumerate(parts):
            codes[at * _PART : (at + 1) * _PART] = np.searchsorted(book, part)
    there_are = sum(int(np.count_nonzero(part)) for part in parts)
    dense = [] if book is None or codes is None else list(_with_book(way, book, codes, limit, huffman))
    # With a bit or two for each gap, or more: where that is too long, gaps need not be made.
    least: float = 8 * first.itemsize
    if book is not None and codes is not None and there_are:
        zeros = int(book[0] == 0)  # without them
        wide = math.log2(max(len(book) - zeros, 1))
        least = min(least, huffman_code.entropy(_times(codes, len(book))[zeros:]) if huffman else wide)
    if there_are < n and there_are * (2 - huffman + least) < 8 * min([limit, *(each.cost for each in dense)]):
        there = np.concatenate([at * _PART + np.flatnonzero(part) for at, part in enumerate(parts)])
        bits, gaps = _gaps(there, n, huffman)
        sparse = replace(way, gap_bits=bits, gaps=gaps)
        yield (plain := replace(sparse, plain=b"".join(part[part != 0].tobytes() for part in parts)))
        if book is not None and codes is not None and len(book) > 1:  # 0 was the first of the book
            yield from _with_book(sparse, book[1:], codes[there] - 1, len(plain.plain), huffman)
    yield from dense


def _with_book(way: _Way, book: NDArray[Any], codes: NDArray[Any], limit: int, huffman: bool) -> Iterator[_Way]:
    """Give `way` a codebook, if that can take fewer than `limit` bytes: a code for a large one takes time to find."""
    counts = _times(codes, len(book))
    if book.nbytes + len(codes) * huffman_code.entropy(counts) / 8 < limit:
        yield replace(way, book=book.tobytes(), codes=_Stream(codes, _code(counts, huffman)))


def _times(codes: NDArray[Any], k: int) -> NDArray[Any]:
    """How often each of k codes is there; in parts, in each of which a code becomes eight bytes."""
    parts = [codes[start : start + _PART] for start in range(0, len(codes), _PART)]
    return np.sum([np.bincount(part, minlength=k) for part in parts], axis=0)


def _gaps(there: NDArray[Any], n: int, huffman: bool) -> tuple[int, _Stream]:
    """Return the best number of bits, and the gaps before the positions `there` and before the end, position n."""
    zeros = np.diff(there, prepend=-1, append=n) - 1
    times = np.bincount(zeros)
    lengths = np.flatnonzero(times)  # of runs of zeros
    found: list[tuple[int, int, _Code]] = []
    for bits in _GAP_BITS:
        filler = (1 << bits) - 1
        counts = np.bincount(lengths % filler, times[lengths], minlength=filler + 1).astype(np.int64)
        counts[filler] = times[lengths] @ (lengths // filler)
        code = _code(counts, huffman)
        found.append((code.cost, bits, code))
    _, bits, code = min(found, key=lambda each: each[0])
    fillers, rest = np.divmod(zeros, (1 << bits) - 1)
    symbols = np.full(int(fillers.sum()) + len(rest), (1 << bits) - 1, dtype=np.uint8)
    symbols[np.cumsum(fillers + 1) - 1] = rest
    return bits, _Stream(symbols, code)


def _code(counts: NDArray[Any], huffman: bool) -> _Code:
    """Return the better code for symbols that occur so often."""
    lengths = huffman_code.fixed_lengths(len(counts))
    codes = [_Code(lengths, False, _whole_bytes(lengths, counts))]
    if huffman:
        lengths = huffman_code.code_lengths(counts)
        table = len(_deflate(lengths.astype(np.uint8).tobytes()))
        codes.append(_Code(lengths, True, _whole_bytes(lengths, counts) + table))
    return min(codes, key=lambda code: code.cost)


def _whole_bytes(lengths: NDArray[Any], counts: NDArray[Any]) -> int:
    return (int(lengths @ counts) + 7) // 8


def decode(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a compressed file, by name, on the CPU.

    Raises:
        TypeError: `data` is not bytes.
        files.WeightsFileError: the bytes are no such file, are damaged, or come from a newer kit.
    """
    return dict(decoded(data))


def decoded(data: bytes) -> Iterator[tuple[str, Tensor]]:
    """As `decode`, one tensor after the other: so a large model is not in memory once more."""
    checks.instance("data", data, bytes, "bytes (to read a path, call read)")
    if data[:4] != MAGIC or len(data) < _FRONT:
        hint = " It looks like safetensors: call files.read." * (data[8:9] == b"{")
        raise WeightsFileError(f"This is no compressed file of the kit ({len(data)} bytes).{hint}")
    if data[4] > FORMAT_VERSION:
        newer = f"This file has format version {data[4]}, this kit reads up to {FORMAT_VERSION}"
        raise WeightsFileError(f"{newer}: update the kit.")
    rest = memoryview(data)[_FRONT:]
    if data[5:_FRONT] != _checksum(data[:5], rest):
        raise _damaged("its checksum is wrong, so at least one byte has changed")
    try:
        yield from _tensors(rest)
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError, zlib.error) as error:
        raise _damaged(f"its header does not fit its bytes ({str(error)[:200].rstrip('.')})") from error


def _tensors(data: memoryview) -> Iterator[tuple[str, Tensor]]:
    header, body = _inflate(data)
    lengths, entries = json.loads(header)
    tables, *sections = _cut(body, lengths)
    inflated, rest = _inflate(tables) if tables else (b"", memoryview(b""))
    if rest:
        raise ValueError("bytes are left after the tables")
    every = [memoryview(inflated), *sections]
    reader = _Reader(*map(_Section, every))
    tied = {entry[1] for entry in entries if len(entry) == 2}
    names, found = set[str](), dict[int, Tensor]()
    for place, entry in enumerate(entries):
        name = entry[0]
        if not isinstance(name, str) or name in names:
            raise ValueError(f"a tensor cannot have the name {name!r}")
        if len(entry) == 2:
            tensor = found[checks.whole("the tied tensor", entry[1], 0, place - 1)]
        else:
            tensor = reader.tensor(*entry[1:])
        if place in tied:
            found[place] = tensor
        names.add(name)
        yield name, tensor
    reader.finish()


class _Section:
    """Bytes that are read from the beginning to the end."""

    def __init__(self, data: memoryview) -> None:
        self.rest = data

    def take(self, size: int) -> memoryview:
        if size > len(self.rest):
            raise ValueError(f"{size} bytes are asked for, {len(self.rest)} are left")
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken


class _Reader:
    """Reads one tensor after the other from all sections."""

    def __init__(self, tables: _Section, books: _Section, gaps: _Section, values: _Section, raw: _Section) -> None:
        self.tables, self.books, self.gaps, self.values, self.raw = tables, books, gaps, values, raw

    def tensor(self, dtype: Any, shape: Any, *how: Any) -> Tensor:
        parts = self.parts(dtype, shape, *how)
        flat = first = next(parts)  # what does not fit is found before there is memory for it
        if len(first) < (n := _product(shape)):
            flat = torch.empty(n, dtype=first.dtype)
            flat[: len(first)] = first
        place = len(first)
        for part in parts:
            flat[place : place + len(part)] = part
            place += len(part)
        return flat.reshape(shape)

    def parts(self, dtype: Any, shape: Any, stored: Any, *coded: Any) -> Iterator[Tensor]:
        """The elements of a tensor in a row, part by part, one at least: a large one need not be in memory."""
        kind, numbers_kind = _dtype(dtype), _dtype(stored)
        checks.instance("a shape", shape, list)
        n = _product(shape)
        if not coded:
            data, step = self.raw.take(n * numbers_kind.itemsize), _PART * numbers_kind.itemsize
            for start in range(0, max(len(data), 1), step):
                yield _tensor(_converted(data[start : start + step], numbers_kind, kind), kind)
            return
        wanted = numbers_kind if coded[5:] else kind
        numbers = self._coded(n, numbers_kind, wanted, *(checks.whole("a number", each) for each in coded[:5]))
        if not coded[5:]:
            yield from (_tensor(part, kind) for part in numbers)
            return
        word, axis = coded[5:]
        checks.whole("an axis", axis, -1, len(shape) - 1)
        count, inner = (1, 1) if axis < 0 else (shape[axis], _product(shape[axis + 1 :]))
        data, place = self.books.take(count * _dtype(word).itemsize), 0
        steps = _tensor(_converted(data, _dtype(word), torch.float64), torch.float64)
        for part in numbers:
            which = torch.arange(place, place + len(part)) // inner % count if axis >= 0 else slice(None)
            yield (_tensor(part, wanted).double() * steps[which]).to(kind)
            place += len(part)

    def _coded(
        self,
        n: int,
        stored: torch.dtype,
        kind: torch.dtype,
        k: int,
        tabled: int,
        bits: int,
        gaps: int,
        gaps_tabled: int,
    ) -> Iterator[NDArray[Any]]:
        """The numbers [n] in the dtype `kind`, part by part: of a codebook only its few are converted."""
        checks.whole("numbers in a codebook", k, 0 if bits else 1, _BOOK)
        lengths = self._lengths(k, tabled) if k else None  # the tables stand in this order
        there, count = None, n
        if bits:
            checks.whole("bits of a gap", bits, _GAP_BITS[0], _GAP_BITS[-1])
            runs = np.concatenate(list(self._symbols(self.gaps, self._lengths(1 << bits, gaps_tabled), gaps)))
            there = _positions(runs, bits, n)
            count = len(there)
        if lengths is None:
            kept = iter([_converted(self.values.take(count * stored.itemsize), stored, kind)])
        else:
            book = _converted(self.books.take(k * stored.itemsize), stored, kind)
            kept = (book[codes] for codes in self._symbols(self.values, lengths, count))
        if there is None:
            return kept
        numbers, place = np.zeros(n, f"<u{kind.itemsize}"), 0
        for part in kept:
            numbers[there[place : place + len(part)]] = part
            place += len(part)
        return iter([numbers])

    def _lengths(self, k: int, tabled: int) -> NDArray[Any]:
        return np.frombuffer(self.tables.take(k), np.uint8) if tabled else huffman_code.fixed_lengths(k)

    def _symbols(self, section: _Section, lengths: NDArray[Any], n: int) -> Iterator[NDArray[Any]]:
        for symbols, used in huffman_code.pieces(section.rest, lengths, n):
            yield symbols
            end = used
        section.take(end)

    def finish(self) -> None:
        if left := sum(len(each.rest) for each in vars(self).values()):
            raise ValueError(f"{left} bytes belong to no tensor")


def _converted(data: memoryview, stored: torch.dtype, kind: torch.dtype) -> NDArray[Any]:
    return _bits(_tensor(np.frombuffer(data, f"<u{stored.itemsize}").copy(), stored).to(kind))


def _positions(gaps: NDArray[Any], bits: int, n: int) -> NDArray[Any]:
    """Return the positions of the numbers, before the end of the tensor, position n."""
    filler = (1 << bits) - 1
    steps = np.where(gaps == filler, filler, gaps + 1)
    places = (np.cumsum(steps) - 1)[gaps != filler]
    if not len(places) or gaps[-1] == filler or int(places[-1]) != n:
        raise ValueError(f"the gaps do not lead to the end of {n} elements")
    return places[:-1]


def write(state: nn.Module | Mapping[str, Tensor], path: str | os.PathLike[str], *, huffman: bool = True) -> int:
    """Write a compressed file, all or nothing, and return its size in bytes; errors as for `files.write`."""
    return disk.put(lambda: encode(state, huffman=huffman).data, path)


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of the compressed file at `path`, by name, on the CPU; errors as for `files.read`."""
    return disk.get(decode, path)


def load_into(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Copy the weights of the compressed file at `path` into `model`, in place; errors as for `files.load_into`."""
    disk.fill(model, path, read)


def _word(dtype: torch.dtype) -> str:
    return next(word for word, each in _DTYPES.items() if each == dtype)


def _dtype(word: Any) -> torch.dtype:
    checks.one_of("a dtype", word, _DTYPES)
    return _DTYPES[word]


def _product(shape: Sequence[Any]) -> int:
    n = 1
    for size in shape:
        n = min(n * checks.whole("a size", size), 1 << 62)  # many sizes make no endless product
    return n


def _smallest(tensor: Tensor) -> torch.dtype:
    """The smallest floating-point dtype from which the tensor comes back bit for bit; else its own dtype."""
    parts = tensor.reshape(-1).split(_PART)
    for word in _SMALLER.get(_word(tensor.dtype), ()):
        kind = _DTYPES[word]
        if all(np.array_equal(_bits(part.to(kind).to(tensor.dtype)), _bits(part)) for part in parts):
            return kind
    return tensor.dtype


def _bits(tensor: Tensor) -> NDArray[Any]:
    """The elements as whole numbers with the same bits, in a row."""
    return tensor.reshape(-1).contiguous().view(torch.uint8).numpy().view(f"<u{tensor.element_size()}")


def _tensor(numbers: NDArray[Any], kind: torch.dtype) -> Tensor:
    """The reverse of `_bits`."""
    return torch.from_numpy(numbers.view(np.uint8)).view(kind)


def _checksum(*parts: bytes | memoryview) -> bytes:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc.to_bytes(4, "little")


def _deflate(data: bytes) -> bytes:
    """Deflated, or stored where it would become so small that `_inflate` refuses it; nothing for nothing."""
    for level in (9, 0):
        packer = zlib.compressobj(level, wbits=-15)
        packed = packer.compress(data) + packer.flush()
        if len(data) <= _INFLATION * len(packed):
            break
    return packed if data else b""


def _inflate(data: bytes | memoryview) -> tuple[bytes, memoryview]:
    """Return what was deflated at the beginning of `data`, and the bytes after it."""
    unpacker = zlib.decompressobj(wbits=-15)
    inflated = unpacker.decompress(data, _INFLATION * len(data))
    if not unpacker.eof:
        raise ValueError("what is deflated has no end")
    return inflated, memoryview(data)[len(data) - len(unpacker.unused_data) :]  # not a copy of a large file


def _cut(data: memoryview, lengths: Any) -> list[memoryview]:
    """Cut five sections of these lengths; all of `data` must go."""
    found = [checks.whole("the length of a section", each) for each in lengths]
    ends = list(itertools.accumulate(found))
    if len(found) != 5 or ends[-1] != len(data):
        raise ValueError(f"{len(data)} bytes cannot be cut into {lengths!r}")
    return [data[end - length : end] for end, length in zip(ends, found, strict=True)]


def _damaged(reason: str) -> WeightsFileError:
    return WeightsFileError(f"This compressed file is damaged, {reason}: fetch it again, or write it again.")
