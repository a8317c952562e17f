"""The compressed file against a slow reader that follows its description, and against damage."""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import math
import os
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kit import compress, files, measure, models, prune, sizes
from kit.compress import Ledger, decode, encode
from kit.data import Dataset
from tests.nets import same
from tests.strangers import STRANGERS
from tests.test_files import Odd

encoding: Any = importlib.import_module("kit.compress.encode")  # the room's function has the module's name

DAMAGES = int(os.environ.get("DAMAGES", "400"))
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
WORDS = {f"torch.{kind}{n}": f"{kind[0]}{n}" for kind in ("int", "float") for n in (8, 16, 32, 64)}
WORDS |= {"torch.uint8": "u8", "torch.bool": "bool", "torch.bfloat16": "bf16"}


def bits(tensor: Tensor) -> list[int]:
    """The elements as whole numbers with the same bits; -0.0 as 0.0."""
    size = tensor.element_size()
    rows = tensor.detach().reshape(-1).contiguous().view(torch.uint8).reshape(-1, size).tolist()
    numbers = [int.from_bytes(bytes(row), "little") for row in rows]
    return [0 if tensor.is_floating_point() and number == 1 << (8 * size - 1) else number for number in numbers]


def assert_equal(back: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    assert list(back) == list(state)
    for name, tensor in state.items():
        assert (back[name].dtype, back[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(back[name]) == bits(tensor), name


def shared(weight: Tensor, clusters: int) -> Tensor:
    """The tensor with so many different numbers, which float16 holds, and its zeros."""
    book = torch.quantile(weight[weight != 0], (torch.arange(clusters) + 0.5) / clusters).half().float()
    nearest = (weight.reshape(-1, 1) - book).abs().argmin(1)
    return torch.where(weight == 0, 0, book[nearest].reshape(weight.shape))


def lenet(ratio: float, clusters: int) -> nn.Module:
    """LeNet-300-100, pruned and shared, its biases in float16."""
    model = prune.weights(models.lenet_300_100(), ratio=ratio, scope="layer")
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.copy_(shared(tensor, clusters) if "weight" in name else tensor.half())
    return model


def odd_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(30, 40, generator=generator)
    few = torch.round(weight * 2) / 2
    special = torch.zeros(1000)
    special[[3, 500, 900, 999]] = torch.tensor([math.nan, math.inf, -math.inf, -0.0])
    special[[10, 20]] = torch.tensor([1e-45, torch.finfo(torch.float32).max])
    nans = torch.zeros(1000, dtype=torch.int32)
    nans[::50] = 0x7F800001 + torch.arange(20, dtype=torch.int32)  # signalling, each with another payload
    state = {
        "scalar": torch.tensor(3.5),
        "zero scalar": torch.tensor(0.0),
        "counter": torch.tensor(12),
        "empty": torch.empty(0, 5),
        "empty double": torch.empty(3, 0, dtype=torch.float64),
        "all zero": torch.zeros(30, 300),
        "all one": torch.ones(5000),
        "one": torch.ones(1),
        "special": special,
        "nans": nans.view(torch.float32),
        "minus zeros": -torch.zeros(500),
        "normal": weight,
        "as double": weight.double(),
        "double": weight.double() / 3,
        "of bfloat16": weight.bfloat16().float(),
        "few": few,
        "few, transposed": few.T,
        "on a grid by rows": torch.randint(-7, 8, (30, 40), generator=generator) * torch.rand(30, 1).half().float(),
        "on a grid by columns": torch.randint(-1, 2, (2, 200, 3), generator=generator) * torch.rand(1, 200, 1),
        "on a grid of 8 bits": torch.randint(-255, 256, (90, 90), generator=generator) * 0.015625,
        "few, every third": few[:, ::3],
        "sparse": weight * (weight > 1.5),
        "sparse and few": few * (few > 1.2),
        "few far apart": torch.nn.functional.one_hot(torch.tensor(700), 5000).float(),
        "expanded": torch.zeros(1, 50).expand(40, 50),
        "flags": torch.arange(3000) % 3 == 0,
        "int8": torch.arange(-100, 100, dtype=torch.int8),
        "uint8": torch.arange(200, dtype=torch.uint8) % 3,
        "int64": torch.tensor([2**62, -(2**62)]),
        "名字": torch.eye(30),
        "": torch.ones(2),
        "needs grad": torch.eye(20, requires_grad=True),
    }
    return state | {f"few, {dtype}": few.to(dtype) for dtype in FLOATS}


def by_hand(data: bytes) -> dict[str, tuple[str, list[int], list[Any]]]:
    """Dtype, shape and numbers of each tensor, read in the slowest way from the description of the format."""
    kinds = {"f64": "f8", "f32": "f4", "f16": "f2", "bool": "?", "i64": "i8", "i32": "i4", "i16": "i2"}
    kinds |= {"i8": "i1", "u8": "u1", "bf16": "u2"}
    assert data[:5] == b"KITz\x01"
    assert int.from_bytes(data[5:9], "little") == zlib.crc32(data[:5] + data[9:])
    opened = zlib.decompressobj(wbits=-15)
    lengths, entries = json.loads(opened.decompress(data[9:]))
    cut = [0, *itertools.accumulate(lengths)]
    tables, books, gaps, values, raw = (opened.unused_data[a:b] for a, b in itertools.pairwise(cut))
    tables = zlib.decompress(tables, wbits=-15) if tables else b""

    def words(k: int, tabled: int) -> dict[str, int]:
        """The canonical words: count up, and shift where they become longer (RFC 1951, section 3.2.2)."""
        nonlocal tables
        sizes = list(tables[:k]) if tabled else [max(1, math.ceil(math.log2(k)))] * k
        tables = tables[k if tabled else 0 :]
        found, code, before = {}, 0, 0
        for size, symbol in sorted((size, symbol) for symbol, size in enumerate(sizes) if size):
            code <<= size - before
            found[f"{code:0{size}b}"], code, before = symbol, code + 1, size
        return found

    def symbols(section: bytes, code: dict[str, int], n: int) -> tuple[list[int], bytes]:
        found: list[int] = []
        text, word, used = "".join(f"{byte:08b}" for byte in section), "", 0
        while len(found) < n:
            word, used = word + text[used], used + 1
            if word in code:
                found.append(code[word])
                word = ""
        return found, section[-(-used // 8) :]

    state: dict[str, Any] = {}
    for name, *entry in entries:
        if len(entry) == 1:
            state[name] = list(state.values())[entry[0]]
            continue
        dtype, shape, stored, *coded = entry
        n, unit = math.prod(shape), np.dtype(kinds[stored])
        if not coded:
            numbers, raw = np.frombuffer(raw[: n * unit.itemsize], unit).tolist(), raw[n * unit.itemsize :]
        else:
            k, tabled, b, m, gaps_tabled = coded[:5]
            code = words(k, tabled) if k else {}
            positions = list(range(n))
            if b:
                runs, gaps = symbols(gaps, words(2**b, gaps_tabled), m)
                positions, place = [], 0
                for run in runs:
                    place += run
                    if run < 2**b - 1:
                        positions.append(place)
                        place += 1
                assert positions.pop() == n
            if k:
                book, books = np.frombuffer(books[: k * unit.itemsize], unit), books[k * unit.itemsize :]
                which, values = symbols(values, code, len(positions))
                kept = [book[each] for each in which]
            else:
                size = len(positions) * unit.itemsize
                kept, values = list(np.frombuffer(values[:size], unit)), values[size:]
            numbers = [unit.type(0).item()] * n
            for position, number in zip(positions, kept, strict=True):
                numbers[position] = number.item()
            if coded[5:]:
                step_kind, axis = np.dtype(kinds[coded[5]]), coded[6]
                count = 1 if axis < 0 else shape[axis]
                size = count * step_kind.itemsize
                steps, books = np.frombuffer(books[:size], step_kind).astype(float), books[size:]
                after = math.prod(shape[axis + 1 :]) if axis >= 0 else n
                numbers = [number * steps[place // after % count] for place, number in enumerate(numbers)]
        if stored == "bf16":
            numbers = [np.uint32(number << 16).view(np.float32).item() for number in numbers]
        state[name] = dtype, shape, numbers
    assert not tables + books + gaps + values + raw
    return state


@pytest.mark.parametrize("huffman", [True, False])
def test_odd_tensors_come_back_bit_for_bit_and_a_reader_by_hand_agrees(huffman: bool) -> None:
    state = odd_tensors()
    before = {name: tensor.clone() for name, tensor in state.items()}
    encoded = encode(state, huffman=huffman)
    assert_equal(decode(encoded.data), state)
    assert encoded == encode(state, huffman=huffman)  # nothing random in it
    assert_equal(state, before)
    for name, (dtype, shape, numbers) in by_hand(encoded.data).items():
        assert (dtype, shape) == (WORDS[str(state[name].dtype)], list(state[name].shape))
        torch.testing.assert_close(
            torch.tensor(numbers, dtype=torch.float64), state[name].flatten().double(), rtol=0, atol=0, equal_nan=True
        )
    assert decode(encode({}, huffman=huffman).data) == {}


def test_a_file_of_today_can_be_read_for_ever() -> None:
    """The example of the module's docstring, byte by byte."""
    header = b'[[0,4,2,1,0],[["w","f32",[10],"f16",2,0,2,5,0]]]'
    row = torch.tensor([0, 0, 7, 0, 0, 0, 0, 5, 7, 0], dtype=torch.float32)
    packer = zlib.compressobj(9, wbits=-15)
    body = packer.compress(header) + packer.flush() + np.array([5, 7], "<f2").tobytes()
    body += bytes([0b10110100, 0b01000000, 0b10100000])
    data = b"KITz\x01" + zlib.crc32(b"KITz\x01" + body).to_bytes(4, "little") + body
    assert_equal(decode(data), {"w": row})
    encoded = encode({"w": row}, huffman=False)
    assert encoded.data == data
    assert encoded.ledger == Ledger(values=1, gaps=2, codebooks=4, tables=0, header=len(data) - 7, raw=0)


@pytest.mark.parametrize("huffman", [True, False])
def test_the_ledger_says_where_the_bytes_are(huffman: bool) -> None:
    for state in ({}, odd_tensors(), lenet(0.9, 16).state_dict(), models.ResNet().state_dict()):
        data, ledger = (encoded := encode(state, huffman=huffman)).data, encoded.ledger
        assert ledger.total == len(data) == sum(vars(ledger).values())
        opened = zlib.decompressobj(wbits=-15)
        lengths = json.loads(opened.decompress(data[9:]))[0]
        assert lengths == [ledger.tables, ledger.codebooks, ledger.gaps, ledger.values, ledger.raw]
        assert len(opened.unused_data) == sum(lengths)
        assert huffman or ledger.tables == 0


def broken(change: Callable[[Tensor], Any]) -> Callable[..., Any]:
    """A reader that changes the last part of what it reads."""
    read = encoding._Reader.parts

    def parts(*given: Any) -> Any:
        *before, last = read(*given)
        yield from before
        yield from change(last)

    return parts


@pytest.mark.parametrize("part", [7, 1 << 20])
@pytest.mark.parametrize("huffman", [True, False])
def test_a_ledger_without_the_file_is_that_of_the_file(
    monkeypatch: pytest.MonkeyPatch, huffman: bool, part: int
) -> None:
    weight = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    tied = nn.Linear(40, 30)
    tied.weight = nn.Parameter(shared(weight, 5))
    states: list[Any] = [{}, odd_tensors(), small(), Odd(1), nn.Sequential(tied, nn.ReLU(), nn.Linear(30, 9), tied)]
    if part > 7:
        states += [lenet(0.9, 16), models.ResNet(), *(make() for make in STRANGERS.values())]
    expected = [encode(state, huffman=huffman).ledger for state in states]
    monkeypatch.setattr(encoding, "_PART", part)
    assert [encoding.ledger(state, huffman=huffman) for state in states] == expected


@pytest.mark.parametrize("part", [7, 1 << 20])
@pytest.mark.parametrize("name", ["raw", "book", "both", "rows", "n"])
def test_a_reader_that_gives_back_something_else_makes_no_ledger(
    monkeypatch: pytest.MonkeyPatch, name: str, part: int
) -> None:
    monkeypatch.setattr(encoding, "_PART", part)
    state = {name: small()[name]}
    changes: list[Callable[[Tensor], Any]] = [
        lambda last: [last + (torch.arange(len(last)) == len(last) - 1).to(last.dtype)],
        lambda last: [last[:-1]],
        lambda last: [last, last],
        lambda last: [],
    ]
    for change in changes:
        with monkeypatch.context() as context:
            context.setattr(encoding._Reader, "parts", broken(change))
            with pytest.raises(
                RuntimeError, match=f"the file written for {name} (does not read back equal|gives back)"
            ):
                encoding.ledger(state)
    assert encoding.ledger(state) == encode(state).ledger


def test_wrong_arguments_of_a_ledger_are_refused() -> None:
    with pytest.raises(TypeError, match="state must be a model, or map names to tensors"):
        encoding.ledger([1])
    with pytest.raises(TypeError, match="huffman must be True or False; got 1"):
        encoding.ledger({}, huffman=1)


def test_a_shared_lenet_costs_what_a_count_by_hand_says() -> None:
    """Deep Compression's sum: bits of codes and gaps, codebooks, biases; and Huffman within 1 % of its bound."""
    model = lenet(0.95, 16)
    fixed, coded = encode(model, huffman=False), encode(model)
    weights = [tensor for name, tensor in model.named_parameters() if "weight" in name]
    assert fixed.ledger.values == sum(4 * int(weight.count_nonzero()) // 8 for weight in weights)  # all are multiples
    assert coded.ledger.raw == fixed.ledger.raw == 2 * 410  # float16
    assert coded.ledger.codebooks == fixed.ledger.codebooks == 2 * 16 * 3
    assert coded.ledger.gaps < fixed.ledger.gaps
    assert coded.ledger.header < 300
    rivals = compress.rivals(model)
    overhead = coded.ledger.tables + coded.ledger.header
    assert rivals["entropy"] <= len(coded.data) - overhead <= 1.01 * rivals["entropy"]
    assert len(coded.data) < len(fixed.data) < sizes.file_bytes(model) / 3
    assert len(coded.data) < min(rivals[name] for name in ("zlib", "zstd", "zlib, symbols"))


def test_each_tensor_takes_the_smallest_way() -> None:
    state = odd_tensors()
    for name, tensor in state.items():
        raw = tensor.numel() * tensor.element_size()
        sizes_by_huffman = [encode({name: tensor}, huffman=huffman).ledger for huffman in (True, False)]
        for ledger in sizes_by_huffman:
            assert ledger.total - ledger.header <= raw, name
        assert sizes_by_huffman[0].total <= sizes_by_huffman[1].total + 2, name
    body = {name: encode({name: state[name]}).ledger for name in state}
    assert body["normal"].raw == 4 * 1200
    assert body["as double"].raw == 4 * 1200
    assert body["of bfloat16"].raw == 2 * 1200
    assert body["all zero"].total < 100 and body["all one"].total < 700 and body["few far apart"].total < 100
    assert body["sparse"].values == 4 * int(state["sparse"].count_nonzero())
    assert body["few"].values and not body["few"].gaps
    assert body["sparse and few"].gaps and body["sparse and few"].codebooks
    assert body["counter"].raw == 8
    wide = torch.arange(4097 * 4, dtype=torch.float32) % 4097 / 4096 + 1e-3  # one number too many for a codebook
    assert encode({"w": wide}).ledger.raw == 4 * len(wide)
    assert encode({"w": wide[wide != wide.max()]}).ledger.raw == 0


def test_shared_memory_is_stored_once(tmp_path: Path) -> None:
    model, path = STRANGERS["tied pair"](), tmp_path / "w.kitz"
    apart = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one, two = encode(model), encode(apart)
    assert two.ledger.raw - one.ledger.raw == 4 * 16 * 16
    back = decode(one.data)
    assert_equal(back, apart)
    assert back["3.weight"].data_ptr() == back["5.weight"].data_ptr()
    base = torch.randn(100)
    assert_equal(
        decode(encode(odd := {"a": base[:60], "b": base[40:], "c": base.view(10, 10)}).data),
        {name: tensor.clone() for name, tensor in odd.items()},
    )
    compress.write(model, path)
    compress.load_into(other := STRANGERS["tied pair"](), path)
    assert same(other, model)
    assert len(list(other.parameters())) < len(apart)  # still tied


@pytest.mark.parametrize("dtype", FLOATS)
def test_models_of_any_dtype_are_written_read_and_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "w.kitz"
    path.write_text("an older file")
    for huffman in (True, False):
        for make in (lambda seed: Odd(seed), lambda seed: models.ResNet(seed=seed)):
            model, other = make(1).to(dtype), make(2).to(dtype)
            assert compress.write(model, path, huffman=huffman) == path.stat().st_size
            assert path.read_bytes() == encode(model, huffman=huffman).data
            assert_equal(compress.read(path), model.state_dict())
            compress.load_into(other, str(path))
            assert same(other, model)
    assert list(tmp_path.iterdir()) == [path]
    for tensor in compress.read(path).values():
        tensor += 1  # what comes back can be written to
    before = copy.deepcopy(narrow := models.ResNet(widths=(4, 8)))
    with pytest.raises(ValueError, match=r"model does not fit .*w\.kitz: tensor .* in the file and .* in the model"):
        compress.load_into(narrow, path)
    assert same(narrow, before)


@pytest.mark.parametrize("name", list(STRANGERS))
def test_strangers_come_back_equal(name: str) -> None:
    model = prune.weights(STRANGERS[name](), ratio=0.8)
    assert_equal(decode(encode(model).data), dict(model.state_dict()))


def test_a_profile_with_the_compressed_file(digits: Dataset, trained: nn.Module) -> None:
    model = prune.weights(trained, ratio=0.9)
    found, usual = compress.profile(model, digits.validation, batch_size=4), measure.profile(model, digits.validation)
    assert found.file_bytes == compress.file_bytes(model) == len(encode(model).data) < usual.file_bytes
    assert (found.accuracy, found.nonzeros, found.flops) == (usual.accuracy, usual.nonzeros, usual.flops)
    assert found.batch_size == 4


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: encode([1]), TypeError, r"state must be a model, or map names to tensors; got \[1\]"),  # type: ignore[arg-type]
        (lambda: encode({}, huffman=1), TypeError, "huffman must be True or False; got 1"),  # type: ignore[arg-type]
        (lambda: encode({"a": torch.ones(2) * 1j}), ValueError, "dtype torch.complex64; allowed are"),
        (lambda: decode("w"), TypeError, "data must be bytes .to read a path, call read.; got 'w'"),  # type: ignore[arg-type]
        (lambda: compress.rivals([1]), TypeError, "state must be a model"),  # type: ignore[arg-type]
        (lambda: decode(b""), files.WeightsFileError, "This is no compressed file of the kit .0 bytes."),
        (lambda: decode(b"KITz\x01"), files.WeightsFileError, "no compressed file of the kit .5 bytes."),
        (
            lambda: decode(files.encode({"a": torch.ones(2)}, sparse=True)),
            files.WeightsFileError,
            "no compressed file .* It looks like safetensors: call files.read",
        ),
        (
            lambda: files.decode(encode({"a": torch.ones(2)}).data),
            files.WeightsFileError,
            "no weights file .* It is a compressed file: call compress.read",
        ),
        (
            lambda: decode(b"KITz\x02" + encode({}).data[5:]),
            files.WeightsFileError,
            "has format version 2, this kit reads up to 1: update the kit",
        ),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[[], Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call()


def test_a_wrong_path_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.kitz"
    with pytest.raises(FileNotFoundError, match=r"w\.kitz does not exist"):
        compress.read(path)
    with pytest.raises(FileNotFoundError, match=r"make .*absent first"):
        compress.write({}, tmp_path / "absent" / "w.kitz")
    compress.write({"a": torch.ones(3)}, path)
    with pytest.raises(TypeError, match="must be a tensor"):
        compress.write({"a": 3}, path)  # type: ignore[dict-item]
    assert compress.read(path)["a"].tolist() == [1, 1, 1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(files.WeightsFileError, match=r"Cannot read .*w\.kitz: This compressed file is damaged"):
        compress.read(path)


def small() -> dict[str, Tensor]:
    """One tensor of each way, and a second name for one."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(20, 25, generator=generator)
    few = torch.round(weight) * (weight.abs() > 1)
    rows = torch.round(2 * weight) * (weight.abs() > 1.3) * (1 + torch.arange(20.0)[:, None] / 7).half()
    state = {
        "book": shared(weight, 5),
        "rows": rows,
        "raw": weight[:3],
        "few": torch.round(weight),
        "sparse": weight * (weight > 1.8),
        "both": few,
    }
    return state | {"zero": torch.zeros(9000), "n": torch.tensor(4), "again": few}


def sealed(data: bytes) -> bytes:
    """The file with a right checksum."""
    return data[:5] + zlib.crc32(data[9:], zlib.crc32(data[:5])).to_bytes(4, "little") + data[9:]


def opened(data: bytes) -> tuple[Any, bytes]:
    packer = zlib.decompressobj(wbits=-15)
    return json.loads(packer.decompress(data[9:])), packer.unused_data


def closed(header: Any, body: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return sealed(b"KITz\x01" + bytes(4) + packer.compress(text) + packer.flush() + body)


def test_every_changed_byte_and_every_cut_is_refused() -> None:
    data = encode(small()).data
    dice = np.random.default_rng(0)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= int(dice.integers(1, 256))
        for damaged in (bytes(changed), data[:place], data[:place] + b"\x00" + data[place:]):
            with pytest.raises(files.WeightsFileError, match=r"no compressed file|is damaged|update the kit"):
                decode(damaged)
    with pytest.raises(files.WeightsFileError, match="its checksum is wrong, so at least one byte has changed: fetch"):
        decode(data[:-1] + bytes([data[-1] ^ 1]))


def entry(place: int, to: Any) -> Callable[[Any], None]:
    """Change a field of a tensor: name, dtype, shape, stored, k, tabled, b, gaps, gaps tabled, step dtype, axis."""

    def change(header: Any) -> None:
        found = next(each for each in header[1] if each[0] == "rows")
        found[place] = to

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (entry(2, [20, 26]), "gaps do not lead to the end of 520 elements"),
        (entry(2, [10**9, 10**9]), "gaps do not lead to the end"),
        (entry(2, list(range(10**6, 10**6 + 3000))), "gaps do not lead to the end"),
        (entry(2, [-20, -25]), "a size must be 0 or more; got -20"),
        (entry(2, [20.0, 25]), "a size must be a whole number; got 20.0"),
        (entry(2, 500), "a shape must be a list; got 500"),
        (entry(1, "f99"), "a dtype must be one of f64, .* got 'f99'"),
        (entry(3, "f99"), "a dtype must be one of f64, .* got 'f99'"),
        (entry(9, "f99"), "a dtype must be one of f64, .* got 'f99'"),
        (entry(10, 2), r"an axis must lie in -1 \.\. 1; got 2"),
        (entry(10, 1), "bytes are asked for"),
        (entry(3, "f64"), "bytes are asked for"),
        (entry(0, "few"), "a tensor cannot have the name 'few'"),
        (entry(0, 3), "a tensor cannot have the name 3"),
        (entry(4, 10**9), r"numbers in a codebook must lie in 0 \.\. 4096"),
        (entry(4, -1), "a number must be 0 or more; got -1"),
        (entry(6, 20), r"bits of a gap must lie in 2 \.\. 8; got 20"),
        (entry(7, 10**9), "1000000000 symbols cannot stand in"),
        (entry(7, 0), "gaps do not lead to the end"),
        (lambda header: header[0].__setitem__(0, 10**6), "cannot be cut into"),
        (lambda header: header[0].__setitem__(0, -1), "the length of a section must be 0 or more"),
        (lambda header: header[0].append(0), "cannot be cut into"),
        (lambda header: header[1].pop(2), "bytes belong to no tensor"),
        (lambda header: header[1].append(["new", 99]), r"the tied tensor must lie in 0 \.\. 8; got 99"),
        (lambda header: header[1].append(["new", "f32", [1]]), "missing 1 required"),
        (lambda header: header[1].append(["new", "f32", [10**9], "f32"]), "bytes are asked for"),
        (lambda header: header[1].append(["new", "f32", [8], "f32", 0, 0, 0, 0, 0]), "codebook must lie in 1"),
        (lambda header: header.pop(), "not enough values"),
    ],
)
def test_a_false_header_with_a_right_checksum_is_refused(change: Callable[[Any], None], reason: str) -> None:
    header, body = opened(encode(small()).data)
    assert_equal(decode(closed(header, body)), small())
    change(header)
    with pytest.raises(files.WeightsFileError, match=rf"damaged, its header does not fit its bytes \(.*{reason}"):
        decode(closed(header, body))


def test_a_header_that_is_nonsense_is_refused() -> None:
    for text in (b"", b"[]", b"3", b"null", b"{}", b"[[0,0,0,0,0],[{}]]", b"[[0,0,0,0,0],[3]]", b"\xff", b"[" * 10**5):
        with pytest.raises(files.WeightsFileError, match="is damaged, its header does not fit") as raised:
            decode(closed(text, b""))
        assert len(str(raised.value)) < 400
    with pytest.raises(files.WeightsFileError, match="what is deflated has no end"):
        decode(closed(b" " * 10**7, b""))  # a bomb: 10 kB that would become 10 MB
    names = {f"{place:09}": torch.empty(0) for place in range(3000)}
    assert list(decode(encode(names).data)) == list(names)  # and many names that deflate well are none


def damaged(data: bytes, dice: np.random.Generator) -> bytes:
    """The file with one to three random changes, half of them with a checksum that is right again."""
    header, body = opened(data)
    for _ in range(dice.integers(1, 4)):
        changed = bytearray(data)
        a, b = sorted(dice.integers(0, len(data) + 1, 2).tolist())
        kind = dice.integers(7)
        if kind == 0 and changed:
            changed[min(a, len(data) - 1)] ^= 1 << int(dice.integers(8))
        elif kind == 1:
            del changed[a:b]
        elif kind == 2:
            changed[a:a] = dice.bytes(int(dice.integers(1, 20)))
        elif kind == 3:
            changed = changed[b:] + changed[a:b] + changed[:a]
        elif kind == 4:
            changed[a:b] = dice.bytes(b - a)
        else:  # a false header
            false = copy.deepcopy(header)
            fields: list[Any] = [false[0], *false[1], *(each[2] for each in false[1] if len(each) > 2)]
            found = fields[int(dice.integers(len(fields)))]
            other: list[Any] = [0, 1, -1, 2**31, 2**63, 10**40, 7, 300, 0.5, True, None, "f16", "w", [], [3, 3], {}]
            if found and dice.random() < 0.9:
                place = int(dice.integers(len(found)))
                new = other[int(dice.integers(len(other)))]
                nudged = isinstance(found[place], int) and dice.random() < 0.5
                found[place] = found[place] + int(dice.integers(-2, 3)) if nudged else new
            else:
                found.append(other[int(dice.integers(len(other)))])
            changed = bytearray(closed(false, body))
        data = bytes(changed)
        if kind < 5 or data[:4] != b"KITz":
            break  # its header can no more be opened
    return sealed(data) if dice.random() < 0.5 and len(data) > 9 else data


def test_a_damaged_file_is_refused_or_stays_small() -> None:
    """DAMAGES=10000 in the environment asks for more."""
    originals = [encode(small(), huffman=huffman).data for huffman in (True, False)]
    wholes = {original: decode(original) for original in originals}
    refused = parsed = 0
    for seed in range(DAMAGES):
        dice = np.random.default_rng(seed)
        data = damaged(original := originals[seed % 2], dice)
        tracemalloc.start()
        try:
            back = decode(data)
        except files.WeightsFileError as error:
            refused += 1
            assert len(str(error)) < 400
        else:
            assert data == sealed(data)  # or else the checksum was not looked at
            parsed += data != original
            assert sum(tensor.numel() for tensor in back.values()) <= 2040 * len(data)
            assert data != original or back.keys() == wholes[original].keys()
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 40_000 * len(data) + 2**20
    assert refused > DAMAGES / 2
    assert parsed  # the parser itself was tried


@pytest.mark.parametrize("n", [50, 100, 400])
def test_a_small_tensor_on_a_grid_is_no_larger_than_its_codes(n: int) -> None:
    drawn = torch.randint(1, 128, (n,), generator=torch.Generator().manual_seed(0)) * 0.0123
    weight = compress.levels_for(drawn, 8).nearest(drawn)
    ledger = encode({"w": weight}).ledger
    k = len(weight.unique())
    assert ledger.raw == 0
    assert ledger.total - ledger.header <= k + 2 + n  # codes of a byte, and what they mean


def test_a_file_beyond_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(small()).data

    def no_memory(*_: Any) -> None:
        raise MemoryError("Unable to allocate 12.2 GiB")

    monkeypatch.setattr(sys.modules["kit.compress.encode"], "_positions", no_memory)
    with pytest.raises(files.WeightsFileError, match=r"does not fit its bytes \(Unable to allocate 12.2 GiB\)"):
        decode(data)


@pytest.mark.parametrize("huffman", [True, False])
def test_a_tensor_that_is_encoded_in_parts_gives_the_same_file(monkeypatch: pytest.MonkeyPatch, huffman: bool) -> None:
    drawn = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 9, (40, 50), generator=drawn)
    numbers, there = torch.randn(9, generator=drawn), torch.rand(40, 50, generator=drawn)
    state = {"dense": numbers[codes], "sparse": numbers[codes] * (there < 0.1), "half": (numbers[codes] / 3).half()}
    whole = encode(state, huffman=huffman)
    assert all(torch.equal(each, state[name]) for name, each in decode(whole.data).items())
    monkeypatch.setattr(encoding, "_PART", 7)
    assert encode(state, huffman=huffman) == whole


@pytest.mark.parametrize("huffman", [True, False])
def test_gaps_are_made_only_where_they_may_pay(monkeypatch: pytest.MonkeyPatch, huffman: bool) -> None:
    """A table of embeddings has a row of zeros: eight bytes an element for nothing."""
    codes = torch.randint(1, 33, (100, 50), generator=torch.Generator().manual_seed(0))
    codes[0] = 0
    state = {"w": torch.linspace(0, 1, 34)[codes].half().float()}
    asked: list[int] = []
    made = encoding._gaps

    def counted(there: Any, *others: Any) -> Any:
        asked.append(len(there))
        return made(there, *others)

    monkeypatch.setattr(encoding, "_gaps", counted)
    assert torch.equal(decode(encode(state, huffman=huffman).data)["w"], state["w"]) and not asked
    state["w"][:50] = 0
    encode(state, huffman=huffman)
    assert set(asked) == {2500}
