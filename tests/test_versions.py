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
FILES = ("pyproject.toml", "requirements.lock", "environment.yml")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PYPROJECT: dict[str, Any] = tomllib.loads(text("pyproject.toml"))
RUNTIME = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
TEST = [Requirement(line) for line in PYPROJECT["project"]["optional-dependencies"]["test"]]
LOCK = [Requirement(line) for line in text("requirements.lock").splitlines() if line and not line.startswith("#")]


def locked(name: str) -> list[Requirement]:
    return [line for line in LOCK if canonicalize_name(line.name) == canonicalize_name(name)]


def pinned(line: Requirement) -> str:
    (specifier,) = line.specifier
    assert specifier.operator == "==", f"requirements.lock: {line} is not exact."
    return specifier.version


def conda() -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return conda's ranges, pip's ranges, and the other pip lines of environment.yml."""
    entries = yaml.safe_load(text("environment.yml"))["dependencies"]
    pip_lines = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    names = [Requirement(entry) for entry in entries if isinstance(entry, str)]
    pips = [Requirement(line) for line in pip_lines if not line.startswith("-")]
    return (
        {entry.name: str(entry.specifier) for entry in names},
        {entry.name: str(entry.specifier) for entry in pips},
        [line for line in pip_lines if line.startswith("-")],
    )


@pytest.mark.parametrize("wanted", [*RUNTIME, *TEST], ids=lambda wanted: wanted.name)
def test_lock_holds_a_version_inside_the_range(wanted: Requirement) -> None:
    lines = locked(wanted.name)
    assert lines, f"requirements.lock lacks {wanted.name}: 'make lock'."
    for line in lines:
        assert wanted.specifier.contains(pinned(line)), f"{line} is outside {wanted}: 'make lock'."


@pytest.mark.parametrize("wanted", RUNTIME, ids=lambda wanted: wanted.name)
def test_conda_has_the_same_range(wanted: Requirement) -> None:
    from_conda, from_pip, _ = conda()
    ranges, name = (from_pip, wanted.name) if wanted.name in FROM_PIP else (from_conda, wanted.name)
    name = CONDA_NAMES.get(name, name)
    assert ranges.get(name) == str(wanted.specifier), f"environment.yml: {name}, pyproject.toml: {wanted}"


def test_conda_has_nothing_else() -> None:
    from_conda, from_pip, others = conda()
    runtime = {wanted.name for wanted in RUNTIME}
    expected = {CONDA_NAMES.get(name, name) for name in runtime - FROM_PIP}
    assert set(from_conda) == expected | {"python", "pip", "setuptools"}
    assert set(from_pip) == FROM_PIP
    assert others == ["-e ."]
    assert yaml.safe_load(text("environment.yml"))["channels"] == ["conda-forge"]


def test_conda_has_the_setuptools_that_builds_the_kit() -> None:
    (build,) = (Requirement(line) for line in PYPROJECT["build-system"]["requires"])
    assert conda()[0]["setuptools"] == str(build.specifier)


def test_python_version_agrees() -> None:
    oldest = PYPROJECT["project"]["requires-python"]
    assert oldest == conda()[0]["python"] == ">=3.11"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == "3.11"
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py311"
    assert "--python-version 3.11" in text("requirements.lock")
    assert "--python-version 3.11" in text("Makefile")
    assert "sys.version_info < (3, 11)" in text("Makefile")


@pytest.mark.parametrize("name", FILES)
def test_no_host_is_named(name: str) -> None:
    """Where packages come from is the reader's own setting."""
    found = re.findall(r"\S*://\S*|--(?:extra-)?index-url\S*|--find-links\S*|\S+\.(?:org|com|io|net)\b", text(name))
    assert not found


def test_lock_has_no_cuda_packages() -> None:
    assert not [line.name for line in LOCK if re.match(r"nvidia-|cuda-|triton", line.name)]


def test_lock_keeps_the_torch_of_the_makefile() -> None:
    wanted = re.search(r"^TORCH := (\S+)$", text("Makefile"), re.MULTILINE)
    assert wanted is not None
    assert [pinned(line) for line in locked("torch")] == [wanted.group(1)]


@pytest.mark.skipif(Path(sys.prefix).resolve() != ROOT / ".venv", reason="not running from .venv")
def test_installed_is_what_the_lock_says() -> None:
    environment = {key: str(value) for key, value in default_environment().items()}
    wrong = []
    for line in LOCK:
        if line.marker is not None and not line.marker.evaluate(environment):
            continue
        have = importlib.metadata.version(line.name)
        if Version(have).public != pinned(line):  # 2.13.0+cpu is a build of 2.13.0
            wrong.append(f"{line.name}: {have} installed, {pinned(line)} locked")
    assert not wrong, "; ".join(wrong)


def test_version_of_the_kit_stands_in_one_place() -> None:
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert importlib.metadata.version(PYPROJECT["project"]["name"]) == kit.__version__
