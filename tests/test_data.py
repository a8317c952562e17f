from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
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


def test_bytes_become_zero_to_one() -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 5, 4), dtype=np.uint8)
    images[0, 0, 0, :2] = 0, 255
    dataset = data.from_arrays(images, np.arange(60) % 2)
    assert dataset.input_shape == (3, 5, 4)
    everything = torch.cat([getattr(dataset, name).inputs for name in SPLITS])
    assert (everything.min(), everything.max()) == (0, 1)
    assert sorted((everything * 255).round().flatten().tolist()) == sorted(images.flatten().tolist())


@pytest.mark.parametrize("dtype", ["float64", "int32", "bool", "float16"])
def test_other_numbers_keep_their_values(dtype: str) -> None:
    inputs = (np.arange(60).reshape(30, 2) % 2).astype(dtype)
    dataset = data.from_arrays(inputs, np.arange(30) % 3)
    assert dataset.train.inputs.dtype == torch.float32
    assert set(dataset.train.inputs.unique().tolist()) == {0.0, 1.0}


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
        (HOLE, Y, {}, "inputs must be finite; 2 of 30 samples hold NaN or infinity"),
        (ENDLESS, Y, {}, "inputs must be finite; 1 of 30"),
        (np.full((30, 2), 1e300), Y, {}, "inputs must be finite; 30 of 30"),
        (np.zeros(30), Y, {}, r"inputs must have shape \[n, ...\].* got shape \(30,\)"),
        (np.zeros((0, 2)), [], {}, r"inputs must have shape .* got shape \(0, 2\)"),
        (np.zeros((30, 0)), Y, {}, r"inputs must have shape .* got shape \(30, 0\)"),
        (X, Y[:-1], {}, r"labels must have shape \[30\].* got shape \(29,\)"),
        (X, np.eye(3)[Y], {}, r"labels must have shape \[30\].* got shape \(30, 3\)"),
        (X, Y - 1, {}, r"labels must lie in 0 .. 1; got values from -1 to 1"),
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
        (X, ["a"] * 30, "labels must be whole numbers; got dtype <U1"),
        *((X, np.where(Y == 1, odd, Y), "labels must be whole .*; got dtype float64") for odd in (0.5, np.nan, np.inf)),
    ],
)
def test_from_arrays_refuses_types(inputs: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        data.from_arrays(inputs, labels)


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize(
    ("inputs", "labels", "sentence"),
    [
        (torch.zeros(0, 2), torch.zeros(0).long(), "{} is empty"),
        (torch.zeros(3, 2), torch.zeros(2).long(), "{} has 3 inputs but 2 labels"),
        (torch.zeros(3, 2).double(), torch.zeros(3).long(), "{} must hold float32 .* got torch.float64"),
        (torch.zeros(3, 2), torch.zeros(3), "{} must hold int64 labels; got torch.float32"),
        (torch.zeros(3, 2), torch.zeros(3, 1).long(), r"{} labels must have one dimension; got shape \(3, 1\)"),
        (torch.zeros(3, 3), torch.zeros(3).long(), r" has samples of shape \(\d,\); those of train are \(\d,\)"),
        (torch.full((3, 2), torch.nan), torch.zeros(3).long(), "{} inputs must be finite"),
        (torch.zeros(3, 2), torch.full((3,), 3), "{} labels must lie in 0 .. 2"),
        (torch.zeros(3, 2), torch.full((3,), -1), "{} labels must lie in 0 .. 2"),
    ],
)
def test_dataset_refuses_a_bad_split(name: str, inputs: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.format(name)):
        with_split(small(), name, Split(inputs, labels))
