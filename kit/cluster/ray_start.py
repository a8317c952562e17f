"""Reach Ray: a cluster that runs, or one that is started for this machine alone."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Thread
from typing import Any
from unittest.mock import patch

import psutil

from kit import checks, cores

STARTS = 3  # of Ray on a busy machine
REACH = 20.0  # seconds in which a cluster must answer
STORE_BYTES = 100_000_000  # of shared memory for the data set; what is beyond goes to the disk
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
TRIES = "RAY_gcs_server_port_wait_time_s"  # of Ray, to connect
# Ray's workers give way to all other processes (niceness 15, a thirtieth of their share): on a busy machine one would
# take minutes to start, and a trial's seconds would count what else runs there. Trials are what this machine is to do.
FAIR = {"worker_niceness": 0}


@contextmanager
def local(workers: int | None = None) -> Iterator[None]:
    """Ray for this machine alone, for as long as the block lasts: each `run` in it needs no start of its own.

    No dashboard, no usage statistics, and nobody listens to other machines. Where this process has Ray already, that is
    used, and stays.

    Args:
        workers: trials at once; None for one on each core.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        TypeError, ValueError: no such number of workers.
        RuntimeError: Ray does not start.
    """
    with reached(None, cores.count() if workers is None else checks.whole("workers", workers, 1)):
        yield


@contextmanager
def reached(address: str | None, cpus: int) -> Iterator[Any]:
    """Ray's module, connected to a cluster; without an address to what there is, or to one of so many CPUs."""
    ray = _ray()
    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", here):
            way_out = "leave its `with local()`, or call ray.shutdown()"
            raise RuntimeError(f"address is {address!r}, and this process is connected to {here}: {way_out} first.")
        yield ray
        return
    # Without this Ray prints a paragraph for each worker that dies, whatever it was told about logs.
    with patch("ray._private.worker.print_to_stdstream", create=True):
        if address is None:
            _start(ray, cpus)
        else:
            _connect(ray, address)
        try:
            yield ray
        finally:
            ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Many machines need Ray, the kit's extra cluster, which is not installed: pip install 'ray[tune]'."
        ) from error
    return ray


def _start(ray: Any, cpus: int) -> None:
    from ray._private.parameter import RayParams

    # Ray looks for an address that other machines can reach, and listens there, unless it is told (as it is on macOS
    # and Windows) that there are none. And it starts helpers that one machine has no use for; on a busy one they keep
    # those that it needs from being there within the 15 seconds that it allows them. The server of its dashboard starts
    # without a dashboard, too, and asks addresses of Amazon, Google and Microsoft whose cloud this is.
    few = partial(RayParams, no_monitor=True, include_log_monitor=False)
    before = psutil.Process().children()
    for tries in range(STARTS, 0, -1):
        try:
            with (
                patch("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False),
                patch("ray._private.parameter.RayParams", few),
                patch("ray._private.node.Node.start_api_server"),
            ):
                ray.init(
                    "local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    object_store_memory=STORE_BYTES,
                    _system_config=FAIR,
                    **QUIET,
                )
            return
        except Exception as error:
            for child in psutil.Process().children():  # Ray leaves them behind, and they would slow the next start
                with suppress(psutil.Error):
                    if child not in before and _is_ray(child):
                        child.kill()
            if tries == 1:
                raise RuntimeError(f"Ray does not start on this machine: {_line(error)}") from error


def _is_ray(process: psutil.Process) -> bool:
    """By its command, which is empty for a moment where the process just begins."""
    late = time.monotonic() + 1
    while not (words := process.cmdline()) and time.monotonic() < late:
        time.sleep(0.001)
    return f"{os.sep}ray{os.sep}" in " ".join(words)


def _connect(ray: Any, address: str) -> None:
    checks.instance("address", address, str, 'a text such as "host:6379"')
    host, _, port = address.rpartition(":")
    if address != "auto" and not (host and port.isdigit() and "/" not in address):
        raise ValueError(f'address must be "host:port", as `ray start --head` says it, or "auto"; got {address!r}.')
    nobody = f"no Ray cluster answers at {address} within {REACH:g} seconds"
    # Ray uses a token by itself where it starts or finds a cluster, not where it is given an address.
    hint = "start one there with `ray start --head`, open its port, and set RAY_AUTH_MODE=token here if it has a token"
    if address != "auto":  # Ray itself would try for minutes
        try:
            socket.create_connection((host, int(port)), timeout=REACH).close()
        except OSError as error:
            raise ConnectionError(f"{nobody} ({error}): {hint}.") from error
    failed: list[BaseException] = []

    def connect() -> None:
        os.environ[TRIES] = "1"
        try:
            ray.init(address, **QUIET)
        except BaseException as error:
            failed.append(error)
        finally:
            del os.environ[TRIES]

    thread = Thread(target=connect, name="reach Ray", daemon=True)  # left behind where somebody else has the port
    thread.start()
    thread.join(REACH)
    if thread.is_alive():
        raise ConnectionError(f"{nobody}: {hint}.")
    if failed:
        raise ConnectionError(f"the Ray cluster at {address} cannot be used: {_line(failed[0])}") from failed[0]


def _line(error: BaseException) -> str:
    """What is at the bottom of it, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).rstrip()
    return " ".join((text.splitlines()[-1] if "Traceback" in text else text).split())
