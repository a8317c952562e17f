"""The order of a test run, and what several test modules share."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # tests of light rooms run without torch
    from kit.data import Dataset
    from kit.models import ConvNet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the browser tests last: the quick ones speak first, and Playwright keeps an event loop in this thread."""
    items.sort(key=lambda item: "tests/browser/" in item.path.as_posix())


@pytest.fixture(scope="session")
def one_thread() -> None:
    """Small networks gain nothing from several threads, and lose much where other work shares the cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits(one_thread: None) -> Dataset:
    """The digits, split once for the whole run."""
    from kit import data

    return data.digits()


@pytest.fixture(scope="session")
def trained(digits: Dataset) -> Iterator[ConvNet]:
    """A small network that knows the digits. Shared, so nobody may change it: that is checked at the end."""
    import torch

    from kit import models, training

    net = models.ConvNet(channels=(8, 16), hidden=32)
    training.fit(net, digits, epochs=6, lr=3e-3)
    net.requires_grad_(True).eval()
    before = copy.deepcopy(net.state_dict())
    yield net
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not net.training
    assert all(parameter.grad is None or parameter.requires_grad for parameter in net.parameters())


@pytest.fixture
def own_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of an empty board: a test sees neither that of the machine, nor that of another test."""
    path = tmp_path / "board.sqlite"
    monkeypatch.setenv("KIT_BOARD", str(path))
    return path
