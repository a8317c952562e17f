"""Files of MNIST's form: small ones, written here byte by byte."""

from __future__ import annotations

import gzip
import hashlib
import struct
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlxtend.data import loadlocal_mnist

from kit import data
from kit.data import Split, idx

RNG = np.random.default_rng(0)
X, X_TEST = (RNG.integers(0, 256, (n, 14, 56), np.uint8) for n in (60, 20))  # the other reader wants 784 pixels
Y, Y_TEST = np.arange(60, dtype=np.uint8) % 3, np.arange(20, dtype=np.uint8) % 3


def packed(array: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


WHOLE = dict(zip(idx.FILES, map(packed, (X, Y, X_TEST, Y_TEST)), strict=True))
TRAIN_X, TRAIN_Y, TEST_X, TEST_Y = idx.FILES


def fill(folder: Path, changed: dict[str, bytes] | None = None, *, dot: bool = False, gz: bool = False) -> Path:
    for file, content in {**WHOLE, **(changed or {})}.items():
        name = file.replace("-idx", ".idx") if dot else file
        (folder / f"{name}{'.gz' * gz}").write_bytes(gzip.compress(content) if gz else content)
    return folder


def samples(*splits: Split) -> Counter[tuple[float, ...]]:
    return Counter(
        (*row, label)
        for split in splits
        for row, label in zip((split.inputs * 255).round().flatten(1).tolist(), split.labels.tolist(), strict=True)
    )


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("dot", [False, True])
def test_files_of_every_name_hold_what_another_reader_finds(tmp_path: Path, dot: bool, gz: bool) -> None:
    (plain := tmp_path / "plain").mkdir()
    fill(plain)
    fill(tmp_path, dot=dot, gz=gz)
    dataset = data.from_idx(tmp_path, checked=False, validation=0.25)
    for file, splits in ("train", (dataset.train, dataset.validation)), ("t10k", (dataset.test,)):
        x, y = loadlocal_mnist(*(str(plain / f"{file}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")))
        assert samples(*splits) == Counter((*row, label) for row, label in zip(x.tolist(), y.tolist(), strict=True))
    assert (dataset.name, dataset.scale, dataset.class_names) == (tmp_path.name, 255, ("0", "1", "2"))
    assert (dataset.input_shape, dataset.noun) == ((1, 14, 56), "images")
    assert [split.labels.bincount().tolist() for split in (dataset.train, dataset.validation)] == [[15] * 3, [5] * 3]
    assert dataset.test.labels.tolist() == Y_TEST.tolist()  # in the file's order
    again, other = (data.from_idx(tmp_path, checked=False, validation=0.25, seed=seed).fingerprint for seed in (0, 1))
    assert dataset.fingerprint == again != other
    assert len(data.from_idx(tmp_path, checked=False).validation) == 10


def test_the_sums_of_what_the_files_hold_tell_which_set_they_are(tmp_path: Path, monkeypatch: Any) -> None:
    sums = {file: hashlib.md5(content).hexdigest() for file, content in WHOLE.items()}
    clothes = {name: right for name, right in idx.MD5.items() if name == "fashion-mnist"}
    digits = {"mnist-70k": tuple(sums.values())}
    many = {TRAIN_Y: packed(np.arange(60, dtype=np.uint8) % 10)}
    monkeypatch.setattr(idx, "MD5", clothes | digits)
    for gz in (False, True):
        folder = tmp_path / str(gz)
        folder.mkdir()
        dataset = data.from_idx(fill(folder, gz=gz))
        assert (dataset.name, dataset.class_names) == ("mnist-70k", ("0", "1", "2"))
        assert data.from_idx(folder, name="mine", class_names=["a", "b", "c"]).class_names == ("a", "b", "c")
        assert data.from_idx(folder, name="mine").name == "mine"
        fill(folder, many, gz=gz)
        with pytest.raises(ValueError, match=rf": the files are those of mnist-70k but for {TRAIN_Y}[.gz]*; get what"):
            data.from_idx(folder)
        assert data.from_idx(folder, checked=False).name == folder.name
    sums[TRAIN_Y] = hashlib.md5(many[TRAIN_Y]).hexdigest()
    monkeypatch.setattr(idx, "MD5", {"fashion-mnist": tuple(sums.values())})
    dataset = data.from_idx(fill(tmp_path, many))
    assert dataset.name == "fashion-mnist"
    assert (dataset.class_names[0], dataset.class_names[9]) == ("T-shirt/top", "Ankle boot")


def test_what_is_no_known_set_is_refused_with_the_way_out(tmp_path: Path) -> None:
    said = "these are the files of neither mnist-70k nor fashion-mnist. checked=False takes them as they are."
    with pytest.raises(ValueError, match=said):
        data.from_idx(fill(tmp_path))
    assert all(len(set(right)) == 4 and {len(each) for each in right} == {32} for right in idx.MD5.values())


HUGE = struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (TRAIN_X, b"", r"is no IDX file of 3 dimension\(s\) in bytes \(such a file begins with 0, 0, 8, 3, "),
        (TRAIN_X, WHOLE[TRAIN_X][:15], "is no IDX file of 3"),
        (TRAIN_X, WHOLE[TRAIN_Y], "is no IDX file of 3"),
        (TRAIN_Y, WHOLE[TRAIN_X], r"is no IDX file of 1 dimension\(s\)"),
        (TEST_X, packed(X_TEST.astype(">i4"), 12), "is no IDX file of 3"),
        (TEST_X, b"\1" + WHOLE[TEST_X][1:], "is no IDX file of 3"),
        (TRAIN_X, WHOLE[TRAIN_X][:-1], "promises 60 x 14 x 56 numbers, at least one, and holds 47,039; get it anew"),
        (TRAIN_X, WHOLE[TRAIN_X] + b"\0", "promises 60 x 14 x 56 numbers, at least one, and holds more than 47,040"),
        (TRAIN_X, HUGE + bytes(50), "promises 2147483648 x 2147483648 x 2147483648 numbers, .* holds 50; get"),
        (TEST_Y, packed(Y_TEST[:0]), "promises 0 numbers, at least one, and holds 0"),
        (TEST_Y, packed(Y_TEST[:19]), "t10k-labels-idx1-ubyte.* has 19 labels for 20 images"),
        (TRAIN_X, packed(X[:50]), "train-labels-idx1-ubyte.* has 60 labels for 50 images"),
        (TEST_X, packed(X_TEST[:, 1:]), r"test has samples of shape \(1, 13, 56\); those of train are \(1, 14, 56\)"),
        (TEST_Y, packed(Y_TEST + 1), r"test labels must lie in 0 .. 2; got values from 1 to 3"),
        (TRAIN_Y, packed(Y * 2), "labels must count from 0 without a gap"),
        (TRAIN_Y, packed(Y * 0), "labels must be of two classes or more; all 60 are 0"),
        (TRAIN_Y, packed(np.minimum(np.arange(60), 1).astype(np.uint8)), "labels: too few samples to stratify 60 into"),
    ],
)
def test_files_that_are_wrong_are_refused(tmp_path: Path, gz: bool, file: str, content: bytes, said: str) -> None:
    fill(tmp_path, {file: content}, gz=gz)
    with pytest.raises(ValueError, match=said):
        data.from_idx(tmp_path, checked=False)


def test_damaged_packings_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, gz=True)
    path = tmp_path / f"{TRAIN_X}.gz"
    whole = path.read_bytes()
    wrong = [whole[:end] for end in (5, 40, len(whole) - 8, len(whole) - 1)]
    wrong += [whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :] for at in (40, 700, len(whole) - 6)]
    for content in wrong:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read to its end, get it anew|promises|is no IDX file"):
            data.from_idx(tmp_path, checked=False)


def test_no_memory_is_taken_for_what_a_file_promises_or_packs_beyond_it(tmp_path: Path) -> None:
    """A header that promises 10^28 bytes, plain and packed, and a file of some 100 kB that unpacks to 60 MB."""
    for content in (HUGE + bytes(9), gzip.compress(HUGE + bytes(9)), gzip.compress(WHOLE[TRAIN_X] + bytes(60_000_000))):
        (fill(tmp_path) / TRAIN_X).write_bytes(content)
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match="promises"):
                data.from_idx(tmp_path, checked=False)
            assert tracemalloc.get_traced_memory()[1] < 3_000_000
        finally:
            tracemalloc.stop()


def test_files_that_are_not_there_and_settings_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold train-images-idx3-ubyte, .* there is no train-images-idx3"):
        data.from_idx(tmp_path)
    fill(tmp_path, gz=True)
    (tmp_path / f"{TEST_Y}.gz").unlink()
    (tmp_path / TEST_Y).mkdir()  # as some unpack them
    with pytest.raises(FileNotFoundError, match="there is no t10k-labels-idx1-ubyte"):
        data.from_idx(tmp_path)
    settings: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"checked": 1}, TypeError, "checked must be True or False; got 1"),
        ({"name": 3}, TypeError, "name must be a text; got 3"),
        ({"seed": -1}, ValueError, "seed must lie in 0 .. 4294967295; got -1"),
        ({"validation": 0}, ValueError, "validation must be above 0; got 0"),
        ({"validation": 1.0}, ValueError, "validation must stay below 1, to leave samples to train; got 1"),
    ]
    for setting, error, said in settings:
        with pytest.raises(error, match=said):
            data.from_idx(tmp_path, **setting)


def test_a_file_is_read_by_its_content_where_a_browser_unpacked_it_and_left_its_name(tmp_path: Path) -> None:
    for file, content in WHOLE.items():
        (tmp_path / f"{file}.gz").write_bytes(content)
    train = data.from_idx(tmp_path, checked=False).train
    assert len(train) == 50 and train.inputs.dtype == torch.float32
