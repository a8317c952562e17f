from __future__ import annotations

import json
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy import sparse as scipy_sparse
from torch import Tensor, nn

from kit import files

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
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape
        assert torch.equal(torch.isnan(back[name]), torch.isnan(tensor))
        assert torch.equal(back[name][~torch.isnan(tensor)], tensor[~torch.isnan(tensor)])


def stored(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The parts of a file and what it says of itself, read without the kit."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return safetensors.torch.load(data), json.loads(header["__metadata__"]["kit"])


def forged(data: bytes, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> bytes:
    """The file with changed parts and a right checksum: what is wrong must be found by looking."""
    parts, about = stored(data)
    change(parts, about)
    about.pop("crc32")
    about["crc32"] = files._checksum(parts, about)
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


# --- reading back equal -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sparse", [True, False])
def test_random_states_read_back_equal_at_every_density(dtype: torch.dtype, sparse: bool) -> None:
    for seed, density in enumerate((0.0, 0.0005, 0.003, 0.01, 0.1, 0.5, 0.79, 0.9, 1.0)):
        state = random_state(seed, density, dtype)
        assert_equal(files.decode(files.encode(state, sparse=sparse)), state)


def test_the_gaps_are_those_of_a_loop_over_the_elements() -> None:
    generator = torch.Generator().manual_seed(1)
    for density in (0.0, 0.001, 0.004, 0.02, 0.3, 1.0):
        for n in (0, 1, 255, 256, 257, 511, 512, 513, 5000):
            flat = torch.randn(n, generator=generator) * (torch.rand(n, generator=generator) < density)
            values, gaps = files.pack(flat)
            assert list(zip(values.tolist(), gaps.tolist(), strict=True)) == gaps_by_hand(flat)
            assert torch.equal(files.unpack(values, gaps, n), flat)


@pytest.mark.parametrize("zeros", [0, 1, 254, 255, 256, 257, 510, 511, 512, 513, 100_000])
def test_a_gap_of_any_length_is_bridged(zeros: int) -> None:
    flat = torch.zeros(zeros + 1)
    flat[-1] = 3
    values, gaps = files.pack(flat)
    assert len(gaps) == zeros // 256 + 1
    assert torch.equal(files.unpack(values, gaps, zeros + 1), flat)


def test_the_example_of_the_module_docstring() -> None:
    flat = torch.zeros(604)
    flat[2], flat[603] = 7, 5
    values, gaps = files.pack(flat)
    assert values.tolist() == [7, 0, 0, 5]
    assert gaps.tolist() == [2, 255, 255, 88]


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


def test_encoding_leaves_the_state_alone_and_shares_nothing_with_it() -> None:
    state = random_state(0, 0.5)
    before = {name: tensor.clone() for name, tensor in state.items()}
    data = files.encode(state, sparse=True)
    for tensor in files.decode(data).values():
        tensor += 1  # what comes back can be written to
    assert_equal(state, before)
    assert_equal(files.decode(data), before)


# --- size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_size_follows_from_the_positions(dtype: torch.dtype) -> None:
    for seed, density in enumerate((0.0, 0.002, 0.01, 0.1, 0.5, 0.66, 0.8, 1.0)):
        state = random_state(seed, density, dtype)
        data = files.encode(state, sparse=True)
        payload = len(data) - 8 - int.from_bytes(data[:8], "little")
        expected = 0
        for tensor in state.values():
            positions = np.flatnonzero(tensor.double().numpy())
            fillers = (np.diff(positions, prepend=-1) - 1) // 256
            as_pairs = (len(positions) + int(fillers.sum())) * (dtype.itemsize + 1)
            dense = tensor.numel() * dtype.itemsize
            expected += as_pairs if as_pairs < dense - 100 else dense
        assert payload == expected


def test_a_non_zero_costs_five_bytes_and_dense_is_never_beaten_by_much() -> None:
    weight = torch.zeros(400, 400)
    weight.reshape(-1)[::10] = 1  # 16 000 of 160 000, and no gap needs a filler
    data = files.encode({"w": weight}, sparse=True)
    assert 5 * 16_000 < len(data) < 5 * 16_000 + 400
    full = {"w": torch.ones(400, 400)}
    assert len(files.encode(full, sparse=True)) <= len(files.encode(full, sparse=False)) + 100


def test_a_dense_file_is_plain_safetensors(tmp_path: Path) -> None:
    state = random_state(0, 0.9)
    files.write(state, tmp_path / "w.safetensors", sparse=False)
    assert_equal(safetensors.torch.load_file(tmp_path / "w.safetensors"), state)
    safetensors.torch.save_file(state, tmp_path / "other.safetensors", {"format": "pt"})
    assert_equal(files.read(tmp_path / "other.safetensors"), state)


# --- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparse", [True, False])
def test_write_says_how_many_bytes_stand_on_disk(tmp_path: Path, sparse: bool) -> None:
    path, state = tmp_path / "w.kit", random_state(5, 0.1)
    path.write_text("an older file")
    assert files.write(state, path, sparse=sparse) == path.stat().st_size
    assert_equal(files.read(path), state)
    assert_equal(files.read(str(path)), state)
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_while_writing_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, failure: BaseException
) -> None:
    path, old = tmp_path / "w.kit", random_state(0, 0.1)
    files.write(old, path, sparse=True)

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os if step == "fsync" else Path, step, fail)
    with pytest.raises(type(failure)):
        files.write(random_state(1, 0.9), path, sparse=True)
    monkeypatch.undo()
    assert_equal(files.read(path), old)
    assert list(tmp_path.iterdir()) == [path]


def test_a_bad_state_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path, old = tmp_path / "w.kit", random_state(0, 0.1)
    files.write(old, path, sparse=True)
    with pytest.raises(TypeError, match="must be a tensor"):
        files.write({"a": torch.ones(2), "b": 3}, path, sparse=True)  # type: ignore[dict-item]
    assert_equal(files.read(path), old)


def test_load_into_copies_the_weights_or_says_what_does_not_fit(tmp_path: Path) -> None:
    def net(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width))

    model, path = net(20), tmp_path / "w.kit"
    nn.init.zeros_(model.get_parameter("0.weight"))
    files.write(model, path, sparse=True)
    other = net(20)
    files.load_into(other, path)
    assert_equal(other.state_dict(), model.state_dict())
    narrow = net(19)
    before = {name: tensor.clone() for name, tensor in narrow.state_dict().items()}
    with pytest.raises(ValueError, match=r"'0\.bias' is \(20,\) in the file and \(19,\) in the model"):
        files.load_into(narrow, path)
    assert_equal(narrow.state_dict(), before)
    with pytest.raises(ValueError, match="absent in the model"):
        files.load_into(nn.Linear(8, 20), path)


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "error", "sentence"),
    [
        ([1, 2], TypeError, "state must be a model or map names to tensors, not list"),
        ({"a": np.ones(3)}, TypeError, r"state\['a'\] must be a tensor, not ndarray"),
        ({3: torch.ones(3)}, TypeError, "text as names, not 3"),
        ({"__metadata__": torch.ones(3)}, ValueError, "must not use the name '__metadata__'"),
        ({"a": torch.eye(3).to_sparse()}, ValueError, "no plain memory"),
        ({"a": torch.ones(3, device="meta")}, ValueError, "no plain memory"),
        ({"a": torch.ones(3, dtype=torch.complex64)}, ValueError, r"dtype torch\.complex64; allowed are float64"),
    ],
)
def test_a_state_that_cannot_be_stored_is_refused(state: Any, error: type[Exception], sentence: str) -> None:
    for sparse in (True, False):
        with pytest.raises(error, match=sentence):
            files.encode(state, sparse=sparse)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="sparse must be True or False, not 1"):
        files.encode({}, sparse=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="data must be bytes, not str"):
        files.decode("weights.kit")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="flat must have one dimension, not 2"):
        files.pack(torch.ones(2, 2))
    with pytest.raises(ValueError, match="equally long"):
        files.unpack(torch.ones(2), torch.zeros(3, dtype=torch.uint8), 9)


def test_a_wrong_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist: check the name"):
        files.read(tmp_path / "absent.kit")
    with pytest.raises(FileNotFoundError, match=r"make .*absent first"):
        files.write({}, tmp_path / "absent" / "w.kit", sparse=True)
    for call in (files.read, lambda path: files.write({}, path, sparse=True)):
        with pytest.raises(IsADirectoryError, match="is a folder: give the name of a"):
            call(tmp_path)
    (tmp_path / "text.kit").write_text("hello, reader")
    with pytest.raises(files.WeightsFileError, match=r"Cannot read .*text\.kit: This is no weights file"):
        files.read(tmp_path / "text.kit")


@pytest.mark.parametrize("data", [b"", b"short", b"a text file that is long enough", b"\x93NUMPY\x01\x00v\x00{"])
def test_what_is_not_a_weights_file_is_refused(data: bytes) -> None:
    with pytest.raises(files.WeightsFileError, match=r"This is no weights file .* give a safetensors file"):
        files.decode(data)


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return pytest.fail, ("a pickle was opened",)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    torch.save({"w": Bomb()}, tmp_path / "w.pt")
    for data in ((tmp_path / "w.pt").read_bytes(), pickle.dumps(Bomb())):
        with pytest.raises(files.WeightsFileError, match="never unpickles"):
            files.decode(data)


@pytest.mark.parametrize("sparse", [True, False])
def test_a_truncated_file_is_refused(sparse: bool) -> None:
    data = files.encode(random_state(0, 0.01), sparse=sparse)
    for length in [*range(0, 1200, 7), *range(1200, len(data), 997), len(data) - 1]:
        with pytest.raises(files.WeightsFileError, match=r"no weights file|is damaged"):
            files.decode(data[:length])
    with pytest.raises(files.WeightsFileError, match="is damaged"):
        files.decode(data + b"\x00")


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


def put_out_of_bounds(parts: dict[str, Tensor], about: dict[str, Any]) -> None:
    parts["w#gaps"][-1] += 1


def cut_values(parts: dict[str, Tensor], about: dict[str, Any]) -> None:
    parts["w#values"] = parts["w#values"][:-1].clone()


def widen_gaps(parts: dict[str, Tensor], about: dict[str, Any]) -> None:
    parts["w#gaps"] = parts["w#gaps"].to(torch.int16)


def drop_gaps(parts: dict[str, Tensor], about: dict[str, Any]) -> None:
    del parts["w#gaps"]


def add_part(parts: dict[str, Tensor], about: dict[str, Any]) -> None:
    parts["stray"] = torch.ones(2)


def store_twice(parts: dict[str, Tensor], about: dict[str, Any]) -> None:
    parts["w#dense"] = torch.ones(2)


def shrink_shape(parts: dict[str, Tensor], about: dict[str, Any]) -> None:
    about["shapes"]["w"] = [30, 29]


def negative_shape(parts: dict[str, Tensor], about: dict[str, Any]) -> None:
    about["shapes"]["w"] = [-30, -30]


def tie_to_nothing(parts: dict[str, Tensor], about: dict[str, Any]) -> None:
    about["tied"]["v"] = "absent"


def unknown_entry(parts: dict[str, Tensor], about: dict[str, Any]) -> None:
    about["extra"] = 1


def unknown_format(parts: dict[str, Tensor], about: dict[str, Any]) -> None:
    about["format"] = "csr"


def version_zero(parts: dict[str, Tensor], about: dict[str, Any]) -> None:
    about["version"] = 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put_out_of_bounds, "lead to position 900, but the tensor has 900 elements"),
        (cut_values, r"equally long rows, gaps in uint8, not shapes \(29,\) and \(30,\)"),
        (widen_gaps, r"gaps in torch\.int16"),
        (drop_gaps, "the values or the gaps of tensor 'w' are missing"),
        (add_part, "part 'stray' belongs to no tensor"),
        (store_twice, "part 'w#dense' belongs to no tensor"),
        (shrink_shape, "lead to position 899, but the tensor has 870 elements"),
        (negative_shape, r"impossible shape \[-30, -30\]"),
        (tie_to_nothing, "'v' is tied to 'absent'"),
        (unknown_entry, "its description is not one that the kit writes"),
        (unknown_format, "its description is not one that the kit writes"),
        (version_zero, "its description is not one that the kit writes"),
    ],
)
def test_a_wrong_file_with_a_right_checksum_is_refused(change: Callable[..., None], reason: str) -> None:
    data = forged(files.encode({"w": torch.eye(30)}, sparse=True), change)
    with pytest.raises(files.WeightsFileError, match=rf"damaged, .*{reason}.*: fetch it again"):
        files.decode(data)


def test_a_sparse_file_without_its_description_is_refused() -> None:
    parts, _ = stored(files.encode({"w": torch.eye(30)}, sparse=True))
    with pytest.raises(files.WeightsFileError, match="not their description"):
        files.decode(safetensors.torch.save(parts))


@pytest.mark.parametrize("kit", ["", "[]", "3", "null", '{"version": "1"}', "[" * 100_000])
def test_a_description_that_is_nonsense_is_refused(kit: str) -> None:
    with pytest.raises(files.WeightsFileError, match="is damaged"):
        files.decode(safetensors.torch.save({"w#gaps": torch.ones(3)}, {"kit": kit}))


def test_a_newer_file_is_refused() -> None:
    def newer(parts: dict[str, Tensor], about: dict[str, Any]) -> None:
        about["version"], about["codebook"] = 2, [1, 2, 3]

    data = forged(files.encode({"w": torch.eye(30)}, sparse=True), newer)
    with pytest.raises(files.WeightsFileError, match="format version 2, this kit reads up to 1: update the kit"):
        files.decode(data)
