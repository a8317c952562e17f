from __future__ import annotations

import copy
import errno
import json
import math
import os
import pickle
import resource
import stat
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy import sparse as scipy_sparse
from torch import Tensor, nn

from kit import files
from kit.files import container
from tests.nets import same

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def random_state(seed: int, density: float, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in {"conv.weight": (16, 8, 3, 3), "fc.weight": (40, 333), "fc.bias": (40,)}.items():
        values = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        state[name] = values * (torch.rand(shape, generator=generator) < density)
    return state


def assert_equal(back: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(back[name], tensor, rtol=0, atol=0, equal_nan=True)


def stored(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The parts of a file and what it says of itself, read without the kit."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return safetensors.torch.load(data), json.loads(header["__metadata__"]["kit"])


def forged(data: bytes, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> bytes:
    """The file with changed parts and a right checksum: what is wrong must be found by looking."""
    parts, about = stored(data)
    change(parts, about)
    about.pop("crc32")
    about["crc32"] = container.checksum(parts, about)
    return safetensors.torch.save(parts, {"kit": json.dumps(about)})


def gaps_by_hand(flat: Tensor) -> list[tuple[float, int]]:
    """The pairs (value, gap), by the plain loop over all elements that the format describes."""
    pairs, zeros = [], 0
    pending: list[tuple[float, int]] = []  # fillers count only if a value follows
    for value in flat.tolist():
        if value != 0:
            pairs += [*pending, (value, zeros)]
            pending, zeros = [], 0
        elif zeros == 255:
            pending, zeros = [*pending, (0.0, 255)], 0
        else:
            zeros += 1
    return pairs


def test_the_gaps_are_those_of_a_loop_over_the_elements() -> None:
    generator = torch.Generator().manual_seed(1)
    for density in (0.0, 0.001, 0.004, 0.02, 0.3, 1.0):
        for n in (0, 1, 255, 256, 257, 511, 512, 513, 5000):
            flat = torch.randn(n, generator=generator) * (torch.rand(n, generator=generator) < density)
            flat[-1:] = 3  # the longest gaps end here
            values, gaps = files.pack(flat)
            assert list(zip(values.tolist(), gaps.tolist(), strict=True)) == gaps_by_hand(flat)
            assert torch.equal(files.unpack(values, gaps, n), flat)
    flat = torch.zeros(604)  # the example of the module's docstring
    flat[2], flat[603] = 7, 5
    assert [part.tolist() for part in files.pack(flat)] == [[7, 0, 0, 5], [2, 255, 255, 88]]


def test_the_positions_are_those_of_scipy() -> None:
    weight = random_state(3, 0.02)["fc.weight"]
    parts, about = stored(files.encode({"w": weight}, sparse=True))
    positions = np.cumsum(parts["w#gaps"].numpy().astype(np.int64) + 1) - 1
    values = parts["w#values"].numpy()
    rows, columns = np.unravel_index(positions[values != 0], about["shapes"]["w"])
    reference = scipy_sparse.coo_array(weight.numpy())
    assert np.array_equal(rows, reference.coords[0])
    assert np.array_equal(columns, reference.coords[1])
    assert np.array_equal(values[values != 0], reference.data)


def test_a_file_of_today_can_be_read_for_ever() -> None:
    """Byte by byte: the example of the docstring, once more under a second name, and a counter."""
    about = '{"format":"sparse","version":1,"shapes":{"w":[604]},"tied":{"again":"w"},"crc32":1288635059}'
    parts = '"w#values":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"w#gaps":{"dtype":"U8","shape":[4],'
    parts += '"data_offsets":[16,20]},"n#dense":{"dtype":"I64","shape":[1],"data_offsets":[20,28]}'
    header = f'{{"__metadata__":{{"kit":{json.dumps(about)}}},{parts}}}'.encode()
    body = struct.pack("<4f4Bq", 7, 0, 0, 5, 2, 255, 255, 88, 3)
    flat = torch.zeros(604)
    flat[2], flat[603] = 7, 5
    state = {"w": flat, "again": flat, "n": torch.tensor([3])}
    assert_equal(files.decode(struct.pack("<Q", len(header)) + header + body), state)
    written = files.encode(state, sparse=True)
    assert json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])["__metadata__"] == {"kit": about}
    assert stored(written)[0].keys() == {"w#values", "w#gaps", "n#dense"}


def test_a_tensor_stays_dense_where_pairs_would_not_be_smaller() -> None:
    """At 1180 float32 the two parts may cost 4620 bytes at most: one pair of 5 bytes, be it a filler, is too many."""
    for zeros, kind in ((257, "dense"), (258, "values")):  # 923 and 922 values, and one filler
        flat = torch.cat([torch.zeros(zeros), torch.ones(1180 - zeros)])
        parts, _ = stored(files.encode({"w": flat, "counts": torch.zeros(1180).long()}, sparse=True))
        assert f"w#{kind}" in parts
        assert "counts#dense" in parts  # whole numbers are stored as they are


def test_odd_tensors_read_back_equal() -> None:
    wide = torch.arange(4000, dtype=torch.float32).reshape(40, 100) % 7 - 3
    special = torch.zeros(1000)
    special[[3, 500, 900, 999]] = torch.tensor([math.nan, math.inf, -math.inf, -0.0])
    special[[10, 20]] = torch.tensor([1e-45, torch.finfo(torch.float32).max])  # the smallest and the largest
    state = {
        "scalar": torch.tensor(3.5),
        "zero scalar": torch.tensor(0.0),
        "counter": torch.tensor(12),
        "empty": torch.empty(0, 5),
        "all zero": torch.zeros(30, 30),
        "one": torch.ones(1),
        "special": special,
        "minus zeros": -torch.zeros(500),
        "transposed": wide.T,
        "every third": (wide * (wide > 2))[:, ::3],
        "expanded": torch.zeros(1, 50).expand(40, 50),
        "channels last": torch.eye(64).reshape(4, 4, 16, 16).to(memory_format=torch.channels_last),
        "flags": torch.arange(300) % 2 == 0,
        "int8": torch.arange(-100, 100, dtype=torch.int8),
        "int64": torch.tensor([2**62, -(2**62)]),
        "名字 #values": torch.eye(30),
        "a": torch.eye(30),
        "a#gaps": torch.eye(30),
        "a#dense": torch.ones(3),
        "": torch.ones(2),
        "needs grad": torch.eye(20, requires_grad=True),
    }
    for sparse in (True, False):
        data = files.encode(state, sparse=sparse)
        assert_equal(files.decode(data), {name: tensor.detach() for name, tensor in state.items()})
        assert data == files.encode(state, sparse=sparse)  # nothing random in it
        assert files.decode(files.encode({}, sparse=sparse)) == {}


def test_shared_memory_is_stored_once_and_both_names_come_back() -> None:
    first, second = nn.Linear(50, 50, bias=False), nn.Linear(50, 50, bias=False)
    alone = len(files.encode({"0.weight": first.weight}, sparse=False))
    second.weight = first.weight
    model = nn.Sequential(first, second)
    base = torch.randn(100, generator=torch.Generator().manual_seed(0))
    overlapping = {"head": base[:60], "tail": base[40:], "again": base.reshape(10, 10)}
    for sparse in (True, False):
        data = files.encode(model, sparse=sparse)
        assert len(data) < alone + 200
        assert_equal(files.decode(data), model.state_dict())
        assert_equal(files.decode(files.encode(overlapping, sparse=sparse)), overlapping)


@pytest.mark.parametrize("dtype", FLOATS)
def test_random_states_read_back_equal_and_their_size_follows_from_the_positions(dtype: torch.dtype) -> None:
    for seed, density in enumerate((0.0, 0.0005, 0.002, 0.003, 0.01, 0.1, 0.5, 0.66, 0.79, 0.9, 1.0)):
        state = random_state(seed, density, dtype)
        assert_equal(files.decode(files.encode(state, sparse=False)), state)
        data = files.encode(state, sparse=True)
        assert_equal(files.decode(data), state)
        expected = 0
        for tensor in state.values():
            positions = np.flatnonzero(tensor.double().numpy())
            fillers = (np.diff(positions, prepend=-1) - 1) // 256
            as_pairs = (len(positions) + int(fillers.sum())) * (dtype.itemsize + 1)
            dense = tensor.numel() * dtype.itemsize
            expected += as_pairs if as_pairs < dense - 100 else dense
        assert len(data) - 8 - int.from_bytes(data[:8], "little") == expected


def test_a_dense_file_is_plain_safetensors(tmp_path: Path) -> None:
    state, path = random_state(0, 0.9), tmp_path / "w.safetensors"
    files.write(state, path, sparse=False)
    assert_equal(safetensors.torch.load_file(path), state)
    safetensors.torch.save_file(state, path, {"format": "pt"})
    assert_equal(files.read(path), state)


@pytest.mark.parametrize("sparse", [True, False])
def test_write_says_how_many_bytes_stand_on_disk_and_leaves_the_state_alone(tmp_path: Path, sparse: bool) -> None:
    path, state, before = tmp_path / "w.kit", random_state(5, 0.1), random_state(5, 0.1)
    path.write_text("an older file")
    assert files.write(state, path, sparse=sparse) == path.stat().st_size
    for place in (path, str(path)):
        back = files.read(place)
        assert_equal(back, before)
        for tensor in back.values():
            tensor += 1  # what comes back can be written to, and shares nothing
    assert_equal(state, before)
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays


@pytest.mark.parametrize(("where", "step"), [(Path, "open"), (Path, "chmod"), (os, "fsync"), (Path, "replace")])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "no space"), PermissionError(13, "no"), KeyboardInterrupt()])
def test_a_failure_while_writing_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, step: str, failure: BaseException
) -> None:
    path, old = tmp_path / "w.kit", random_state(0, 0.1)
    files.write(old, path, sparse=True)
    with pytest.raises(type(failure)) as raised, monkeypatch.context() as patch:
        patch.setattr(where, step, Mock(side_effect=failure))
        files.write(random_state(1, 0.9), path, sparse=True)
    if isinstance(failure, OSError):
        sentence = f"path {path} cannot be written ({failure.strerror}) and stays as it was: free some space, or"
        assert sentence in str(raised.value)
        assert isinstance(raised.value, OSError)
        assert raised.value.errno == failure.errno
    with pytest.raises(TypeError, match="must be a tensor"):
        files.write({"a": torch.ones(2), "b": 3}, path, sparse=True)  # type: ignore[dict-item]
    assert_equal(files.read(path), old)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path, old = tmp_path / "w.kit", {"a": torch.ones(10)}
    files.write(old, path, sparse=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # the system itself breaks off after so many bytes
    try:
        with pytest.raises(OSError, match=r"w\.kit cannot be written .File too large. and stays as it was"):
            files.write({"a": torch.ones(10_000)}, path, sparse=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_equal(files.read(path), old)
    assert list(tmp_path.iterdir()) == [path]


def test_a_symbolic_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "store").mkdir()
    link, second, target = tmp_path / "links" / "a", tmp_path / "links" / "b", tmp_path / "store" / "w.kit"
    second.symlink_to(link)
    link.symlink_to(Path("..") / "store" / "w.kit")
    with pytest.raises(FileNotFoundError, match=rf"path {link} links to {target}, which does not exist"):
        files.read(link)
    for seed, place in enumerate((link, second, link)):  # the first makes the target
        files.write(random_state(seed, 0.1), place, sparse=True)
        assert link.is_symlink() and second.is_symlink() and not target.is_symlink()
        assert_equal(files.read(target), random_state(seed, 0.1))
    assert sorted(tmp_path.rglob("*")) == sorted([tmp_path / "links", tmp_path / "store", link, second, target])
    target.unlink()
    target.parent.rmdir()
    with pytest.raises(FileNotFoundError, match=rf"path {link} is in a folder .* make {target.parent} first"):
        files.write({}, link, sparse=True)
    link.unlink()
    link.symlink_to(second)
    with pytest.raises(OSError, match=rf"path {link} is a device, or a link to itself: give"):
        files.write({}, link, sparse=True)
    assert link.is_symlink()


def test_permissions_stay_and_a_new_file_has_those_of_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, long = tmp_path / "w.kit", tmp_path / ("n" * 255)  # as long as a name may be
    before = os.umask(0o027)
    try:
        for place in (path, long):
            files.write({"a": torch.ones(2)}, place, sparse=True)
            assert stat.S_IMODE(place.stat().st_mode) == 0o640
        for mode in (0o600, 0o664, 0o755):
            path.chmod(mode)
            files.write({"a": torch.full((2,), mode)}, path, sparse=True)
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert files.read(path)["a"][0] == mode
    finally:
        os.umask(before)
    monkeypatch.setattr(os, "access", lambda place, mode: (Path(place), mode) != (path, os.W_OK))  # root may write all
    with pytest.raises(PermissionError, match=r"w\.kit is write-protected: allow writing with chmod, or choose"):
        files.write({}, path, sparse=True)
    assert files.read(path)["a"][0] == 0o755


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a device, or a link to itself: give the name of an ordinary file"):
        files.write({}, tmp_path / "pipe", sparse=True)
    assert (tmp_path / "pipe").is_fifo()


def test_load_into_copies_the_weights_or_says_what_does_not_fit(tmp_path: Path) -> None:
    def net(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width))

    model, other, narrow, path = net(20), net(20), net(19), tmp_path / "w.kit"
    nn.init.zeros_(model.get_parameter("0.weight"))
    files.write(model, path, sparse=True)
    files.load_into(other, path)
    assert same(other, model)
    before = copy.deepcopy(narrow)
    with pytest.raises(ValueError, match=r"'0\.bias' is \(20,\) in the file and \(19,\) in the model"):
        files.load_into(narrow, path)
    assert same(narrow, before)
    with pytest.raises(ValueError, match=r"'0\.bias' is \(20,\) in the file and absent in the model"):
        files.load_into(nn.Linear(8, 20), path)
    with pytest.raises(ValueError, match=r"'2\.bias' is absent in the file and \(3,\) in the model"):
        files.load_into(nn.Sequential(*net(20), nn.Linear(20, 3)), path)


class Odd(nn.Module):
    """A model with parts of every kind: tied, empty, single numbers, counters, flags."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.encode, self.decode = nn.Linear(40, 40, bias=False), nn.Linear(40, 40, bias=False)
        self.encode.weight = nn.Parameter(torch.randn(40, 40, generator=generator).relu() - 1)
        self.decode.weight = self.encode.weight
        self.norm = nn.BatchNorm1d(40)
        self.scale = nn.Parameter(torch.randn((), generator=generator))
        self.none = nn.Parameter(torch.empty(0, 3))
        self.register_buffer("mask", torch.rand(500, generator=generator) < 0.5)
        self.register_buffer("counts", torch.randint(-9, 9, (500,), generator=generator, dtype=torch.int16))
        self.norm(torch.randn(6 + seed, 40, generator=generator))


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_model_of_any_dtype_comes_back_equal_and_tied(tmp_path: Path, dtype: torch.dtype, sparse: bool) -> None:
    model, other, path = Odd(1).to(dtype), Odd(2).to(dtype), tmp_path / "w.kit"
    size = files.write(model, path, sparse=sparse)
    files.load_into(other, path)
    assert same(other, model)
    assert other.decode.weight is other.encode.weight
    assert all(tensor.dtype == model.state_dict()[name].dtype for name, tensor in other.state_dict().items())
    back = files.read(path)
    assert back["decode.weight"].data_ptr() == back["encode.weight"].data_ptr()
    del model.decode
    assert abs(size - files.write(model, path, sparse=sparse)) < 100  # the second name, and no second matrix


def test_the_bits_of_nan_stay() -> None:
    bits = torch.zeros(1000, dtype=torch.int32)
    bits[::50] = 0x7FC00000 + torch.arange(20, dtype=torch.int32)  # quiet NaN, each with another payload
    bits[7] = 0x7F800001  # a signalling one
    for sparse in (True, False):
        back = files.decode(files.encode({"a": bits.view(torch.float32)}, sparse=sparse))
        assert torch.equal(back["a"].view(torch.int32), bits)


@pytest.mark.parametrize(
    ("stored", "dtype", "fits"),
    [
        (torch.tensor([1, -3, 2**24]), torch.float32, True),
        (torch.tensor([1, -3, 2**24 + 1]), torch.float32, False),
        (torch.tensor([2**53 + 1]), torch.float64, False),
        (torch.tensor([2**63 - 1]), torch.float32, False),
        (torch.tensor([True, False]), torch.float32, True),
        (torch.tensor([3.0, -0.0]), torch.int64, True),
        (torch.tensor([0.5, 3.0]), torch.int64, False),
        (torch.tensor([2.0**31]), torch.int32, False),
        (torch.tensor([math.nan]), torch.int64, False),
        (torch.tensor([math.inf]), torch.int64, False),
        (torch.tensor([1.0, 0.0]), torch.bool, True),
        (torch.tensor([2]), torch.bool, False),
        (torch.tensor([200], dtype=torch.uint8), torch.int8, False),
        (torch.tensor([0.5, math.nan, math.inf], dtype=torch.float64), torch.float32, True),
        (torch.tensor([0.1], dtype=torch.float64), torch.float32, False),
        (torch.tensor([1e5]), torch.float16, False),
        (torch.tensor([0.1], dtype=torch.bfloat16), torch.float32, True),
        (torch.tensor(7), torch.float16, True),
        (torch.zeros(0, dtype=torch.int64), torch.float32, True),
    ],
)
def test_a_value_of_another_dtype_is_loaded_exactly_or_refused(
    tmp_path: Path, stored: Tensor, dtype: torch.dtype, fits: bool
) -> None:
    path, model = tmp_path / "w.kit", nn.Module()
    model.register_buffer("other", torch.ones(2))
    model.register_buffer("part", torch.ones(stored.shape, dtype=dtype))
    files.write({"other": torch.zeros(2), "part": stored}, path, sparse=True)
    if fits:
        files.load_into(model, path)
        part = model.get_buffer("part")
        assert part.dtype == dtype
        torch.testing.assert_close(part.double(), stored.double(), rtol=0, atol=0, equal_nan=True)
    else:
        wrong = rf"tensor 'part' holds values of {stored.dtype} that {dtype} cannot hold; convert the model first"
        with pytest.raises(ValueError, match=wrong):
            files.load_into(model, path)
        assert model.get_buffer("other").sum() == 2  # nothing was copied
        assert model.get_buffer("part").eq(1).all()


def test_a_tied_model_refuses_weights_that_are_not(tmp_path: Path) -> None:
    path, model = tmp_path / "w.kit", Odd(1)
    state = {name: tensor.clone() for name, tensor in Odd(2).state_dict().items()}
    files.write(state, path, sparse=True)  # apart, but equal
    files.load_into(model, path)
    assert same(model, Odd(2))
    state["decode.weight"][3, 3] += 1
    files.write(state, path, sparse=True)
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match="tensors 'encode.weight' and 'decode.weight' differ in the file and are one"):
        files.load_into(model, path)
    assert same(model, before)


def storing(state: Any) -> Callable[[], bytes]:
    return lambda: files.encode(state, sparse=True)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (storing([1, 2]), TypeError, r"state must be a model, or map names to tensors; got \[1, 2\]"),
        (
            storing({"a": np.ones(3)}),
            TypeError,
            r"state\['a'\] must be a tensor .leave it out, or convert it.; got array",
        ),
        (storing({3: torch.ones(3)}), TypeError, "each name in state must be text; got 3"),
        (storing({"__metadata__": torch.ones(3)}), ValueError, "must not use the name '__metadata__'"),
        (storing({"a": torch.eye(3).to_sparse()}), ValueError, "no plain memory .torch.sparse_coo, device cpu."),
        (storing({"a": torch.ones(3, device="meta")}), ValueError, "no plain memory .torch.strided, device meta."),
        (storing({"a": torch.ones(3) * 1j}), ValueError, r"dtype torch\.complex64; allowed are float64"),
        (lambda: files.encode({}, sparse=1), TypeError, "sparse must be True or False; got 1"),  # type: ignore[arg-type]
        (lambda: files.decode("w.kit"), TypeError, "data must be bytes .to read a path, call read.; got 'w.kit'"),  # type: ignore[arg-type]
        (lambda: files.pack(torch.ones(2, 2)), ValueError, "flat must have one dimension, not 2"),
        (lambda: files.unpack(torch.ones(2), torch.zeros(3).byte(), 9), ValueError, "equally long"),
        (lambda: files.pack([0, 1]), TypeError, r"flat must be a Tensor; got \[0, 1\]"),  # type: ignore[arg-type]
        (lambda: files.unpack([1], torch.ones(1).byte(), 9), TypeError, "values must be a Tensor"),  # type: ignore[arg-type]
        (lambda: files.unpack(torch.ones(1), [1], 9), TypeError, "gaps must be a Tensor"),  # type: ignore[arg-type]
        (lambda: files.unpack(torch.ones(0), torch.ones(0).byte(), -1), ValueError, "n must be 0 or more; got -1"),
        (
            lambda: files.unpack(torch.ones(1), torch.tensor([5]).byte(), 5),
            ValueError,
            "lead to position 5, but .* 5 el",
        ),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[[], Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call()


def test_a_wrong_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.kit does not exist: check the name"):
        files.read(tmp_path / "absent.kit")
    with pytest.raises(FileNotFoundError, match=r"make .*absent first"):
        files.write({}, tmp_path / "absent" / "w.kit", sparse=True)
    calls: list[Callable[[Any], Any]] = [
        files.read,
        lambda path: files.write({}, path, sparse=True),
        lambda path: files.load_into(nn.Linear(2, 2), path),
    ]
    for call in calls:
        with pytest.raises(IsADirectoryError, match="is a folder: give the name of a"):
            call(tmp_path)
        with pytest.raises(TypeError, match="path must be a path: text, or a Path; got 3"):
            call(3)
    with pytest.raises(TypeError, match=r"model must be a model .nn\.Module.; got \{\}"):
        files.load_into({}, tmp_path / "w.kit")  # type: ignore[arg-type]
    (tmp_path / "text.kit").write_text("hello, reader")
    with pytest.raises(files.WeightsFileError, match=r"Cannot read .*text\.kit: This is no weights file"):
        files.read(tmp_path / "text.kit")


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return pytest.fail, ("a pickle was opened",)


def test_what_is_not_a_weights_file_is_refused_and_a_pickle_never_opened() -> None:
    for data in (b"", b"short", b"a text file that is long enough", b"\x93NUMPY\x01\x00v\x00{"):
        with pytest.raises(files.WeightsFileError, match=r"This is no weights file .* give a safetensors file"):
            files.decode(data)
    torch.save({"w": Bomb()}, saved := BytesIO())
    for data in (saved.getvalue(), pickle.dumps(Bomb())):
        with pytest.raises(files.WeightsFileError, match="never unpickles"):
            files.decode(data)


@pytest.mark.parametrize("sparse", [True, False])
def test_a_truncated_file_is_refused(sparse: bool) -> None:
    data = files.encode(random_state(0, 0.01), sparse=sparse)
    for length in [*range(0, 1200, 7), *range(1200, len(data), 997), len(data) - 1]:
        header = int.from_bytes(data[:8], "little")
        reason = "its table of contents does not fit" if length >= 8 + header else "its header cannot be read"
        with pytest.raises(files.WeightsFileError, match=f"is damaged, {reason}" if length > 8 else "no weights file"):
            files.decode(data[:length])
    with pytest.raises(files.WeightsFileError, match="is damaged, its table of contents does not fit"):
        files.decode(data + b"\x00")
    with pytest.raises(files.WeightsFileError, match="its checksum is wrong, so at least one byte has changed: fetch"):
        files.decode(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("sparse", [True, False])
def test_one_changed_byte_never_changes_what_is_read(sparse: bool) -> None:
    state = {"w": torch.eye(30), "b": torch.arange(5.0), "n": torch.tensor(3)}
    state["tied"] = state["w"]
    data, refused = files.encode(state, sparse=sparse), 0
    rng = np.random.default_rng(0)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= int(rng.integers(1, 256))
        try:
            back = files.decode(bytes(changed))
        except files.WeightsFileError:
            refused += 1
        else:
            if not sparse:  # without its description a dense file is plain safetensors, which cannot tell
                back.setdefault("tied", back.get("w", torch.empty(0)))
            assert_equal(back, state)
    assert refused > 0.9 * len(data)


def change(what: str, to: Callable[[Any], Any]) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Replace a part, or an entry of the description."""

    def changed(parts: dict[str, Any], about: dict[str, Any]) -> None:
        place = parts if "#" in what else about
        place[what] = to(place.get(what))

    return changed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change("w#gaps", lambda gaps: gaps + 1), "lead to position 929, but the tensor has 900 elements"),
        (change("w#values", lambda w: w[1:].clone()), r"equally long rows, .* got shapes \(29,\) and \(30,\)"),
        (change("w#gaps", lambda gaps: gaps.to(torch.int16)), r"gaps in torch\.int16"),
        (lambda parts, about: parts.pop("w#gaps"), "the values or the gaps of tensor 'w' are missing"),
        (change("stray#", lambda _: torch.ones(2)), "part 'stray#' belongs to no tensor"),
        (change("w#dense", lambda _: torch.ones(2)), "part 'w#dense' belongs to no tensor"),
        (change("shapes", lambda _: {"w": [30, 29]}), "lead to position 899, but the tensor has 870 elements"),
        (change("shapes", lambda _: {"w": [-30, -30]}), r"impossible shape \[-30, -30\]"),
        (change("shapes", lambda _: {"w": [10**15]}), r"impossible shape \[10{15}\]"),
        (change("shapes", lambda _: {"w": [10**30]}), r"impossible shape \[10{30}\]"),
        (change("tied", lambda _: {"v": "absent"}), "'v' is tied to 'absent'"),
        (change("extra", lambda _: 1), "its description is not one that the kit writes"),
        (change("format", lambda _: "csr"), "its description is not one that the kit writes"),
        (change("version", lambda _: 0), "its description is not one that the kit writes"),
    ],
)
def test_a_wrong_file_with_a_right_checksum_is_refused(change: Callable[..., None], reason: str) -> None:
    good = files.encode({"w": torch.eye(30)}, sparse=True)
    with pytest.raises(files.WeightsFileError, match=rf"damaged, .*{reason}.*(?<!\.): fetch it again"):
        files.decode(forged(good, change))
    newer = forged(good, lambda _, about: about.update(version=2, book=[1]))
    with pytest.raises(files.WeightsFileError, match="format version 2, this kit reads up to 1: update the kit"):
        files.decode(newer)


def test_a_description_that_is_absent_or_nonsense_is_refused() -> None:
    parts, _ = stored(files.encode({"w": torch.eye(30)}, sparse=True))
    for kit in (None, "", "[]", "3", "null", '{"version": "1"}', "[" * 100_000):
        reason = "not their description" if kit is None else "is damaged"
        with pytest.raises(files.WeightsFileError, match=reason):
            files.decode(safetensors.torch.save(parts, None if kit is None else {"kit": kit}))


DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16, torch.bfloat16, torch.int32, torch.float32)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_length_is_that_of_the_whole_file(seed: int, sparse: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name in ("a", 'ü"x', "日本", "z/\\t", "\n\x01", "b.c", "🙂", "d")[: 1 + seed % 8]:
        dtype = (*DTYPES, torch.float64, torch.int64)[int(torch.randint(10, (1,), generator=generator))]
        shape = torch.randint(
            0, 40, (int(torch.randint(0, 3, (1,), generator=generator)),), generator=generator
        ).tolist()
        numbers = 3 * torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.3)
        state[name] = numbers.to(dtype)
    state["tied"] = state["a"]
    assert files.length(state, sparse=sparse) == len(files.encode(state, sparse=sparse))


def test_length_reads_its_parts_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.container, "unpack", lambda values, gaps, n: torch.ones(n))
    state = {"w": torch.eye(60)}
    with pytest.raises(RuntimeError, match=r"^the part written for w does not read back equal\.$"):
        files.length(state, sparse=True)
