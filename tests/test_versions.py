"""pyproject.toml (ranges), requirements.lock (exact) and environment.yml (conda) say the same."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import kit

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"torch": "pytorch-cpu"}
FROM_PIP = {"torch-pruning"}  # conda-forge has no package of it


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PYPROJECT: dict[str, Any] = tomllib.loads(text("pyproject.toml"))
RUNTIME = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
TEST = [Requirement(line) for line in PYPROJECT["project"]["optional-dependencies"]["test"]]
CLUSTER = [Requirement(line) for line in PYPROJECT["project"]["optional-dependencies"]["cluster"]]
BIG = [Requirement(line) for line in PYPROJECT["project"]["optional-dependencies"]["big"]]
LOCK = [Requirement(line) for line in text("requirements.lock").splitlines() if line and not line.startswith("#")]


def locked(name: str) -> list[Requirement]:
    return [line for line in LOCK if canonicalize_name(line.name) == canonicalize_name(name)]


def pinned(line: Requirement) -> str:
    (specifier,) = line.specifier
    assert specifier.operator == "==", f"requirements.lock: {line} is not exact."
    return specifier.version


def ranges(entries: list[Any]) -> dict[str, str]:
    lines = [Requirement(entry) for entry in entries if isinstance(entry, str) and not entry.startswith("-")]
    return {line.name: str(line.specifier) for line in lines}


ENVIRONMENT = yaml.safe_load(text("environment.yml"))
PIP_LINES: list[str] = next(entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict))
CONDA, PIP = ranges(ENVIRONMENT["dependencies"]), ranges(PIP_LINES)


@pytest.mark.parametrize("wanted", [*RUNTIME, *TEST, *CLUSTER], ids=lambda wanted: wanted.name)
def test_lock_holds_a_version_inside_the_range(wanted: Requirement) -> None:
    lines = locked(wanted.name)
    assert lines, f"requirements.lock lacks {wanted.name}: 'make lock'."
    for line in lines:
        assert wanted.specifier.contains(pinned(line)), f"{line} is outside {wanted}: 'make lock'."


@pytest.mark.parametrize("wanted", RUNTIME, ids=lambda wanted: wanted.name)
def test_conda_has_the_same_range(wanted: Requirement) -> None:
    name = CONDA_NAMES.get(wanted.name, wanted.name)
    have = (PIP if name in FROM_PIP else CONDA).get(name)
    assert have == str(wanted.specifier), f"environment.yml: {name}, pyproject.toml: {wanted}"


def test_conda_has_nothing_else() -> None:
    runtime = {wanted.name for wanted in RUNTIME}
    assert set(CONDA) == {CONDA_NAMES.get(name, name) for name in runtime - FROM_PIP} | {"python", "pip", "hatchling"}
    assert set(PIP) == FROM_PIP
    assert [line for line in PIP_LINES if line.startswith("-")] == [
        "-e .[cluster]"
    ]  # what is left to pip says pyproject.toml
    assert ENVIRONMENT["channels"] == ["conda-forge"]
    (build,) = (Requirement(line) for line in PYPROJECT["build-system"]["requires"])  # what builds the kit
    assert CONDA["hatchling"] == str(build.specifier)


def test_python_version_agrees() -> None:
    oldest = PYPROJECT["project"]["requires-python"]
    assert oldest == CONDA["python"] == ">=3.11"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == "3.11"
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py311"
    assert all("--python-version 3.11" in text(name) for name in ("requirements.lock", "Makefile"))
    assert "sys.version_info < (3, 11)" in text("Makefile")


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock", "environment.yml"])
def test_no_host_is_named(name: str) -> None:
    """Where packages come from is the reader's own setting."""
    hosts = r"\S*://\S*|--(?:extra-)?index-url\S*|--find-links\S*|\S+\.(?:org|com|io|net)\b"
    assert not re.findall(hosts, text(name))


def test_lock_has_no_cuda_packages_and_the_torch_of_the_makefile() -> None:
    assert not [line.name for line in LOCK if re.match(r"nvidia-|cuda-|triton", line.name)]
    wanted = re.search(r"^TORCH := (\S+)$", text("Makefile"), re.MULTILINE)
    assert wanted is not None
    assert [pinned(line) for line in locked("torch")] == [wanted.group(1)]


@pytest.mark.parametrize(
    ("system", "machine", "python", "has_wheel"),
    [
        ("linux", "x86_64", "3.11", True),
        ("linux", "aarch64", "3.14", True),
        ("linux", "armv7l", "3.12", False),
        ("linux", "x86_64", "3.15", False),
        ("darwin", "arm64", "3.13", True),
        ("darwin", "x86_64", "3.13", False),
        ("win32", "AMD64", "3.12", True),
        ("win32", "ARM64", "3.12", False),
    ],
)
def test_ray_is_asked_for_where_it_has_a_wheel(system: str, machine: str, python: str, has_wheel: bool) -> None:
    environment = {"sys_platform": system, "platform_machine": machine, "python_version": python}
    environment |= {"python_full_version": f"{python}.2"}
    asked = [line for line in CLUSTER if line.marker is not None and line.marker.evaluate(environment)]
    assert len(asked) == has_wheel
    for name in ("ray", "pyarrow", "tensorboardx", "pydantic-core"):
        (line,) = locked(name)
        assert line.marker is not None and line.marker.evaluate(environment) == has_wheel


@pytest.mark.parametrize("wanted", BIG, ids=lambda wanted: wanted.name)
def test_the_big_extra_is_beside_the_lock_and_in_ci(wanted: Requirement) -> None:
    assert not locked(wanted.name), "what everybody installs stays small"
    commands = [line.strip() for line in text(".ci/run").splitlines()]
    assert commands.index("make big") < commands.index("make test"), "CI must not skip what the extra is for"
    if not (have := [each for each in importlib.metadata.distributions() if each.name == wanted.name]):
        pytest.skip(f"{wanted.name} is not installed: make big")
    assert wanted.specifier.contains(have[0].version)


@pytest.mark.skipif(Path(sys.prefix).resolve() != ROOT / ".venv", reason="not running from .venv")
def test_installed_is_what_the_lock_says() -> None:
    environment = {key: str(value) for key, value in default_environment().items()}
    here = [line for line in LOCK if line.marker is None or line.marker.evaluate(environment)]
    have = {line.name: Version(importlib.metadata.version(line.name)).public for line in here}  # 2.13.0+cpu: 2.13.0
    assert have == {line.name: pinned(line) for line in here}


def test_version_of_the_kit_stands_in_one_place() -> None:
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert importlib.metadata.version(PYPROJECT["project"]["name"]) == kit.__version__
