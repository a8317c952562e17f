"""Refuse every connection that leaves this machine, and write down that it was tried.

Python imports a module of this name by itself at start, when its folder is on ``PYTHONPATH``. So the guard is in place
before any line of a notebook runs, and in every Python process that the notebook starts.

It is an audit hook: the interpreter calls it inside each socket operation, whichever library asks. Jupyter's own
sockets are not touched: they are ZeroMQ's, and on the loopback address anyway.

``KIT_OFFLINE_RECORD`` names the file that collects the attempts, one a line. An empty file means: guarded, and nothing
was tried.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

ADDRESS_EVENTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
NAME_EVENTS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})
LOCAL_NAMES = frozenset({"", "localhost", "localhost.localdomain", "ip6-localhost", "0.0.0.0", "::"})


class NetworkRefusedError(ConnectionRefusedError):
    """Something tried to leave this machine while the guard was on."""


def is_local(host: object) -> bool:
    """Say whether a host, as given to a socket call, is this machine."""
    if isinstance(host, (bytes, bytearray)):
        host = bytes(host).decode("ascii", "replace")
    if host is None:
        return True
    if not isinstance(host, str):
        return False
    name = host.lower().rstrip(".").split("%")[0]
    if name in LOCAL_NAMES or name == "::1" or name == socket.gethostname().lower():
        return True
    digits = name.removeprefix("::ffff:").split(".")
    return digits[0] == "127" and len(digits) == 4 and all(part.isdigit() for part in digits)


def refused(event: str, arguments: tuple[Any, ...]) -> object | None:
    """Return the address that a socket event must not reach, or None when the event is allowed."""
    if event in ADDRESS_EVENTS:
        where, address = arguments[0], arguments[1]
        if address is None or where.family not in {socket.AF_INET, socket.AF_INET6}:
            return None  # sendmsg on a connected socket, a Unix socket: nothing new is reached
        return None if is_local(address[0]) else address
    if event in NAME_EVENTS:
        return None if is_local(arguments[0]) else arguments[0]
    return None


def write_down(line: str) -> None:
    """Append to the record; one short write, so that several processes do not mix their lines."""
    record = os.environ.get("KIT_OFFLINE_RECORD")
    if record:
        handle = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line.encode("utf-8", "replace"))
        finally:
            os.close(handle)


def guard(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook."""
    if not event.startswith("socket."):
        return
    address = refused(event, arguments)
    if address is not None:
        write_down(f"{event} {address!r} (process {os.getpid()})\n")
        raise NetworkRefusedError(
            f"The network is off for this run: {event} to {address!r} was refused. "
            "Notebooks must work without a network once the kit is installed."
        )


def install() -> None:
    """Start guarding this process; there is no way back, which is the point."""
    write_down("")
    sys.addaudithook(guard)


if __name__ == "sitecustomize":  # not when a test imports this file to look at its functions
    install()
