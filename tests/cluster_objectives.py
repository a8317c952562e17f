"""Objectives for searches on Ray: workers import them, so they stand in a module."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from threading import Event, Lock
from typing import Any

import psutil

from kit.search import Config


def square(config: Config) -> float:
    return (config["x"] - 0.3) ** 2


def trained(config: Config, *, epochs: int) -> float:
    return config["x"] / epochs


def both(config: Config) -> dict[str, float]:
    return {"error": 1 - config["x"], "bytes": 10 + 100 * config["x"]}


class Notes:
    """Writes a line into a file whenever it is unpacked; answers with its process, as scores."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        with self.path.open("a") as file:
            file.write("unpacked\n")

    def __call__(self, config: Config) -> list[float]:
        import torch
        from threadpoolctl import threadpool_info

        from kit import cores

        time.sleep(0.05)
        print("what an objective prints")
        blas = max((each["num_threads"] for each in threadpool_info()), default=1)
        return [os.getpid(), torch.get_num_threads(), blas, cores.count()]


def sums(configs: list[Config]) -> list[float]:
    """Each gets the length of its cohort."""
    return [float(len(configs)) for _ in configs]


def raises(config: Config) -> float:
    raise ValueError("a mistake of its own")


def hangs(config: Config) -> float:
    while config["x"] > 0.8:
        time.sleep(0.05)
    return config["x"]


class Waits:
    """Waits to be cancelled, and leaves a note then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, config: Config, *, cancel: Event) -> float:
        assert cancel.wait(300)
        (self.folder / str(config["x"])).touch()
        return 1.0


class Dies:
    """Kills its process, the hard way, where x is above 0.8: the first `times` times that it is asked to."""

    def __init__(self, folder: Path, times: int) -> None:
        self.folder, self.times = folder, times

    def __call__(self, config: Config) -> float:
        if config["x"] > 0.8:
            earlier = len(list(self.folder.glob(f"{config['x']} *")))
            (self.folder / f"{config['x']} {earlier}").touch()
            if earlier < self.times:
                os.kill(os.getpid(), signal.SIGKILL)
        return config["x"]

    def cohort(self, configs: list[Config]) -> list[float]:
        return [self(config) for config in configs]


def eats(config: Config) -> float:
    """Wants more memory than it is allowed where x is above 0.8."""
    import resource

    if config["x"] > 0.8:
        resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))
        bytearray(2**33)
    return config["x"]


def sleeps(config: Config) -> float:
    time.sleep(0.3)
    return config["x"]


def niceness(config: Config) -> float:
    return float(psutil.Process().nice())


class Outlasts:
    """Until a file is there, and so long that what is killed meanwhile cannot answer; at once where it is there."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, config: Config) -> float:
        waited = not self.file.exists()
        while not self.file.exists():
            time.sleep(0.05)
        time.sleep(5 * waited)
        return config["x"]


class Locked:
    def __init__(self) -> None:
        self.lock = Lock()

    def __call__(self, config: Config) -> float:
        return 1.0
