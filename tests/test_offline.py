"""The network guard of the notebook runs really refuses, and a run that tried to get out is red."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.notebooks.kernels import ROOT, kernel_environment, network_attempts
from tests.notebooks.plugin import OfflineNotebook
from tests.offline.sitecustomize import is_local

# 192.0.2.0/24 is reserved for documentation, and .invalid never resolves: nothing is reached even with the guard off.
ATTEMPTS = """
import socket, urllib.request
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
tcp = socket.socket()
for attempt in (
    lambda: tcp.connect(("192.0.2.1", 80)),
    lambda: tcp.connect_ex(("192.0.2.2", 80)),
    lambda: udp.sendto(b"x", ("192.0.2.3", 9)),
    lambda: socket.getaddrinfo("kit.invalid", 443),
    lambda: socket.gethostbyname("kit2.invalid"),
):
    try:
        attempt()
    except ConnectionRefusedError as error:
        assert "network is off" in str(error), error
    else:
        raise SystemExit("not refused")
try:
    urllib.request.urlopen("http://kit3.invalid/", timeout=1)
except OSError as error:
    assert "network is off" in str(error), error
"""
LOCAL = """
import socket
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(("localhost", server.getsockname()[1]))
client.sendall(b"ping")
assert server.accept()[0].recv(4) == b"ping"
left, right = socket.socketpair()
left.sendmsg([b"x"])
"""


def run_guarded(code: str, scratch: Path) -> list[str]:
    """Run code in a guarded Python; return what the guard wrote down."""
    environment = {**os.environ, **kernel_environment(scratch)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)
    return network_attempts(scratch)


def test_guard_refuses_and_writes_down(tmp_path: Path) -> None:
    attempts = run_guarded(ATTEMPTS, tmp_path)
    wanted = ("192.0.2.1", "192.0.2.2", "192.0.2.3", "kit.invalid", "kit2.invalid", "kit3.invalid")
    assert len(attempts) == len(wanted)
    assert all(host in attempt for host, attempt in zip(wanted, attempts, strict=True))


def test_guard_leaves_local_sockets_alone_and_no_guard_is_not_taken_for_no_attempt(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="without the network guard"):
        network_attempts(tmp_path)
    assert run_guarded(LOCAL, tmp_path) == []


def test_local_hosts_are_told_from_hosts_elsewhere() -> None:
    local = ["localhost", "127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "", None, b"::1"]
    elsewhere = ["192.0.2.1", "127.0.0.1.invalid", "2001:db8::1", "127.invalid", b"kit.invalid", 7]
    assert [host for host in [*local, *elsewhere] if is_local(host)] == local


def test_notebook_that_hides_its_attempt_turns_the_run_red(tmp_path: Path) -> None:
    """The whole way: nbval, a kernel, the guard, the report."""
    hides = (
        "import os, socket\n"
        "assert os.environ['KIT_BOARD'] and 'offline' in os.environ['PYTHONPATH']\n"
        "try:\n    socket.create_connection(('192.0.2.1', 80))\n"
        "except OSError as error:\n    print('network is off' in str(error))"
    )
    said = nbformat.v4.new_output("stream", name="stdout", text="True\n")
    cell = nbformat.v4.new_code_cell(hides, execution_count=1, outputs=[said])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "hides.ipynb")
    options = ["-p", "tests.notebooks.plugin", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-q"]
    command = [sys.executable, "-m", "pytest", *options, f"--rootdir={tmp_path}", "-c", os.devnull, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "hides.ipynb tried to reach the network" in done.stdout
    assert "1 passed, 1 error" in done.stdout  # the cell itself is green: what it printed is what is stored


@pytest.mark.parametrize("there", [True, False])
def test_cells_of_the_extra_are_compared_only_where_it_is(
    there: bool, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.pretrained.here", lambda: there)
    cells = [nbformat.v4.new_code_cell("print(1)", metadata={"tags": tags}) for tags in (["big"], [])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "big.ipynb")
    notebook = OfflineNotebook.from_parent(request.session, path=tmp_path / "big.ipynb")
    notebook.compare_outputs = True  # as with --nbval
    assert [cell.options["check"] for cell in notebook.collect()] == [there, True]
