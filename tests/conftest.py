"""The order of a test run, and what several test modules share."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

pytest.register_assert_rewrite("tests.explorer_contract")

if TYPE_CHECKING:  # tests of light rooms run without torch
    from kit.data import Dataset
    from kit.models import MLP, ConvNet

E = TypeVar("E", bound=Any)  # an explorer


def pytest_configure() -> None:
    """A shell that starts a run in the background lets it ignore Ctrl-C; some tests press it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = ("tests/browser/test_notebooks", "tests/browser/test_stills.py", "tests/browser/")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The quick ones speak first; but where files run side by side the longest ones begin, so that all end together."""

    def late(item: pytest.Item) -> int:
        return next((len(LONGEST) - at for at, part in enumerate(LONGEST) if part in item.path.as_posix()), 0)

    items.sort(key=late, reverse=hasattr(config, "workerinput"))


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


@pytest.fixture(scope="session")
def tiny(one_thread: None) -> Dataset:
    """Six numbers a sample in three classes; 131 samples train, so that batches of 64 leave a last one of three."""
    import numpy as np

    from kit import data

    labels = np.arange(219) % 3
    return data.from_arrays(np.random.default_rng(0).normal(size=(219, 6)) + labels[:, None], labels)


@pytest.fixture(scope="session")
def few_digits(digits: Dataset) -> Dataset:
    """200 images to train on: four steps an epoch."""
    return dataclasses.replace(digits, train=digits.train.first(200))


@pytest.fixture(scope="module")
def board_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty board for the explorer that the tests of a module share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIT_BOARD", str(tmp_path_factory.mktemp("shared") / "board.sqlite"))
        yield


@pytest.fixture
def opened() -> Iterator[Callable[[E], E]]:
    """Hand an explorer through, and close it at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda explorer: stack.enter_context(contextlib.closing(explorer))


@pytest.fixture(scope="session")
def teacher(tiny: Dataset) -> MLP:
    """A wide network that knows `tiny`."""
    from kit import models, training

    net = models.MLP((6, 24, 16, 3), seed=7)
    training.fit(net, tiny, epochs=10, lr=1e-2)
    net.zero_grad()
    return net


@pytest.fixture
def own_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of an empty board: a test sees neither that of the machine, nor that of another test."""
    path = tmp_path / "board.sqlite"
    monkeypatch.setenv("KIT_BOARD", str(path))
    return path
