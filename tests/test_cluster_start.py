"""Ray that is not there, does not start, or cannot be reached: one sentence each; nothing is started here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from kit import cluster
from kit.cluster import ray_start
from kit.search import Float, Random, Space, Study
from tests import cluster_objectives as objectives

SPACE = Space({"x": Float(0, 1)})


class Refusing:
    """Stands for Ray where no cluster is needed."""

    def __init__(self, said: str) -> None:
        self.said = said
        self.children: list[subprocess.Popen[bytes]] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, *args: Any, **settings: Any) -> None:
        if self.said:
            command = [sys.executable, "-c", "import time; time.sleep(60)", f"{os.sep}ray{os.sep}gcs"]
            self.children.append(subprocess.Popen(command))
            raise RuntimeError(self.said)
        time.sleep(3)


@pytest.mark.parametrize("address", ["somewhere", "ray://host:10001", "host:", ":6379"])
def test_what_is_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_start, "_ray", lambda: Refusing(""))
    with pytest.raises(ValueError, match='^address must be "host:port", as `ray start --head` says it, or "auto"; got'):
        cluster.run(Study(SPACE), objectives.square, Random(), budget=2, address=address)


def test_a_cluster_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_start, "_ray", lambda: Refusing(""))
    monkeypatch.setattr(ray_start, "REACH", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"^no Ray cluster answers at {address} within 0.5 seconds .*refused"):
            cluster.run(Study(SPACE), objectives.square, Random(), budget=2, address=address)
        silent.listen()
        with pytest.raises(
            ConnectionError, match=f"^no Ray cluster answers at {address} within 0.5 seconds: start one"
        ):
            cluster.run(Study(SPACE), objectives.square, Random(), budget=2, address=address)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ModuleNotFoundError, match="^Many machines need Ray, the kit's extra cluster, which is not inst"
    ):
        cluster.run(Study(SPACE), objectives.square, Random(), budget=2)
    assert cluster.simulate(
        Study(SPACE), objectives.square, Random(), budget=2, duration=lambda config, epochs: 1.0, workers=2
    )


def test_ray_that_does_not_start_is_tried_again_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="many machines need Ray: the extra cluster")
    refusing = Refusing("no room\n for it")
    monkeypatch.setattr(ray_start, "_ray", lambda: refusing)
    with pytest.raises(RuntimeError, match="^Ray does not start on this machine: no room for it$"), cluster.local():
        pass
    assert len(refusing.children) == ray_start.STARTS
    assert all(child.wait(10) < 0 for child in refusing.children)


@pytest.mark.parametrize(("last", "expected"), [(["python", f"{os.sep}ray{os.sep}gcs"], True), (["python"], False)])
def test_a_process_that_just_begins_is_asked_again(last: list[str], expected: bool) -> None:
    commands = iter([[], [], last])
    assert ray_start._is_ray(SimpleNamespace(cmdline=lambda: next(commands))) is expected
