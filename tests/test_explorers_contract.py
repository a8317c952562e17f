"""Every explorer keeps the contract. To add one, write a case in `tests/explorer_cases.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.data import Dataset
from kit.explorers import base
from kit.explorers.base import Explorer
from kit.explorers.pinning import PinningExplorer
from kit.models import ConvNet
from tests.explorer_cases import CASES
from tests.explorer_contract import Case, Contract, Fresh, Hold, Pinning
from tests.hands import PATIENCE, recover


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """No pause between figures: no page paints them here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "DETAIL_SECONDS", 0.0)
        patch.setattr(base, "BETWEEN_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def shared(
    case: Case, digits: Dataset, trained: ConvNet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Explorer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIT_BOARD", str(tmp_path_factory.mktemp("shared") / "board.sqlite"))
        explorer = case.make(digits, trained)
        explorer.wait_curves(PATIENCE)
    yield explorer
    explorer.close()


@pytest.fixture
def explorer(shared: Explorer, own_board: Path) -> Explorer:
    """The explorer that the tests of a case share, its controls and board as at the beginning."""
    recover(shared)
    if isinstance(shared, PinningExplorer):
        shared.read_board()
        recover(shared)
    return shared


@pytest.fixture
def fresh(case: Case, digits: Dataset, trained: ConvNet, own_board: Path) -> Iterator[Fresh]:
    with contextlib.ExitStack() as made:
        yield lambda: made.enter_context(contextlib.closing(case.make(digits, trained)))


@pytest.fixture
def hold(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hold]:
    held = Hold(explorer)
    monkeypatch.setattr(explorer, "_compute", held)
    yield held
    held.goes_on.set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name, indirect=True)
class TestContract(Contract):
    pass


@pytest.mark.parametrize("case", [case for case in CASES if case.pins], ids=lambda case: case.name, indirect=True)
class TestPinning(Pinning):
    pass
