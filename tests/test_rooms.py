"""The rooms of `kit`: who may import whom, who may load what, and that entering the house is cheap."""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kit

ROOT = Path(__file__).resolve().parents[1]
KIT = ROOT / "kit"

# Room -> the rooms it may import. Its own parts are always allowed; `search` is looked at part by part.
NOTHING: frozenset[str] = frozenset()
LEARNING = frozenset({"data", "models", "inference", "training"})
MEASURING = LEARNING | {"files", "sizes", "cohort", "measure", "store", "board"}
COMPUTING = MEASURING | {"cells", "prune", "distill", "compress", "search", "cluster", "cost"}
MAY_IMPORT: dict[str, frozenset[str]] = {
    **dict.fromkeys(("checks", "cores", "cells", "data", "files", "inference", "store", "lab"), NOTHING),
    "models": frozenset({"cells"}),
    "training": frozenset({"data", "models", "inference"}),
    "cohort": LEARNING | {"measure"},
    "sizes": frozenset({"inference", "files"}),
    "measure": frozenset({"data", "inference", "training", "sizes"}),
    "board": frozenset({"measure", "store"}),
    **dict.fromkeys(("prune", "distill"), MEASURING),
    "compress": MEASURING | {"prune", "distill"},
    "pretrained": LEARNING | {"measure"},
    "search": frozenset({"store"}),
    "cost": NOTHING,
    "cost.machine": frozenset({"measure"}),
    "cluster": frozenset({"search"}),
    **dict.fromkeys(("search.networks", "search.landscape", "search.gradient"), MEASURING),
    "search.architecture": MEASURING | {"cells"},
    "together": COMPUTING,
    "plots": COMPUTING | {"together"},
    "explorers": COMPUTING | {"together", "plots"},
    "exercises": COMPUTING | {"together", "plots", "explorers"},
}

DRAWING = frozenset({"matplotlib", "plotly"})
WIDGETS = frozenset({"ipywidgets", "IPython"})
HEAVY = DRAWING | WIDGETS | {"torch", "numpy", "scipy", "sklearn", "pandas", "torch_pruning", "safetensors", "ray"}
HEAVY |= {"transformers"}
LIGHT_SEARCH = (
    *("space", "trials", "study", "study_file", "running", "calling", "grid", "random", "halving", "nsga2", "parego"),
    *("acquisition", "surrogate", "bayes", "places", "pareto", "ehvi", "functions", "estimators", "replay", "duel"),
    "importance",
)
COST = ("", ".storage", ".roofline", ".hardware", ".transformer", ".convnet", ".published", ".compression", ".training")
WITHOUT_TORCH = frozenset(f"search.{part}" for part in LIGHT_SEARCH) | {
    *(f"cost{part}" for part in COST),
    *("cluster", "cluster.actor", "cluster.loop", "cluster.on_ray", "cluster.ray_start", "cluster.simulation"),
}
IMPORT_MILLISECONDS = 50

# Started once with torch and scikit-learn loaded, once without torch. Each module is imported in a fork of its own, so
# modules do not see each other, and torch is loaded once instead of once a module.
PROBE = """
import json, os, sys, traceback
from importlib import import_module
preload, modules, watched = json.loads(sys.argv[1])
for name in preload:
    import_module(name)
before = set(watched) & set(sys.modules)
for name in modules:
    if os.fork() == 0:
        error = ""
        try:
            import_module(name)
        except BaseException:
            error = traceback.format_exc()
        libraries = sorted(set(watched) & set(sys.modules))
        print(json.dumps({"name": name, "libraries": libraries, "before": sorted(before), "error": error}), flush=True)
        os._exit(0)
    os.wait()
"""


def source_names() -> list[str]:
    """Return every module of the kit, without the leading `kit.`, from the files alone: nothing is imported."""
    paths = [path.relative_to(KIT).with_suffix("") for path in sorted(KIT.rglob("*.py"))]
    names = [".".join(path.parent.parts if path.name == "__init__" else path.parts) for path in paths]
    return [name for name in names if name]


MODULES = source_names()


def path_of(name: str) -> Path:
    base = KIT.joinpath(*name.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def imported(name: str, source: str) -> set[str]:
    """Return the modules of the kit that a module imports anywhere, functions included (without `kit.`)."""
    package = ["kit", *name.split(".")]
    if not KIT.joinpath(*name.split(".")).is_dir():
        package.pop()
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return {module.removeprefix("kit.") for module in found if module.startswith("kit.")} - {"__version__"}


@functools.cache
def probed() -> dict[str, dict[str, Any]]:
    """Import each module in a process of its own; return what each one loaded, or its error."""
    light = [name for name in MODULES if name in WITHOUT_TORCH]
    slow = ["scipy.stats", "sklearn.gaussian_process", "sklearn.model_selection"]  # these load no torch
    much = ["torch", *slow, "nbformat.v4"]  # the last one, which plotly's widgets load, reads a grammar for seconds
    heavy = [name for name in MODULES if name not in light]
    jobs = [(slow, light), (much, heavy[::2]), (much, heavy[1::2])]
    orders = [json.dumps([preload, [f"kit.{name}" for name in names], sorted(HEAVY)]) for preload, names in jobs]
    processes = [
        subprocess.Popen([sys.executable, "-c", PROBE, order], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for order in orders
    ]
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    rows = [json.loads(line) for output in outputs for line in output.splitlines() if line.startswith('{"name"')]
    return {row["name"].removeprefix("kit."): row for row in rows}


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@needs_fork
@pytest.mark.parametrize("name", MODULES)
def test_module_loads_only_what_its_room_may(name: str) -> None:
    if name == "cluster.tune":  # nothing without Ray
        pytest.importorskip("ray")
    row = probed()[name]
    assert not row["error"], row["error"]
    assert not set(row["before"]) & (DRAWING | WIDGETS), "what is loaded beforehand already brings what is looked for"
    libraries = set(row["libraries"])
    room = name.split(".")[0]
    if room not in {"plots", "explorers", "exercises"}:
        assert not libraries & DRAWING, f"kit.{name} loads {sorted(libraries & DRAWING)}: that is for kit.plots."
    if room not in {"explorers", "exercises"}:
        assert not libraries & WIDGETS, f"kit.{name} loads {sorted(libraries & WIDGETS)}: that is for kit.explorers."
    assert "ray" not in libraries or name == "cluster.tune", (
        f"kit.{name} loads ray, which needs seconds: enter it late."
    )
    if name in WITHOUT_TORCH:
        assert "torch" not in libraries, f"kit.{name} loads torch: an objective is a plain callable."


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_only_rooms_below_it(name: str) -> None:
    parts = name.split(".")  # its own rule, else that of the nearest part or room around it
    rule = next((rule for at in range(len(parts), 0, -1) if (rule := ".".join(parts[:at])) in MAY_IMPORT), "")
    assert rule, f"kit.{name} is in no room that this test knows: add the room to MAY_IMPORT."
    own = name.split(".")[0]
    rooms = {module.split(".")[0] for module in imported(name, path_of(name).read_text(encoding="utf-8"))}
    wrong = rooms - MAY_IMPORT[rule] - {own, "checks", "cores"}  # everybody may refuse, and compute
    assert not wrong, f"kit.{name} imports {sorted(wrong)}; it may import {sorted(MAY_IMPORT[rule]) or 'nothing'}."


def test_the_table_has_no_circle() -> None:
    done: set[str] = set()
    rest = {room: rooms for room, rooms in MAY_IMPORT.items() if "." not in room}
    while rest:
        ready = {room for room, rooms in rest.items() if rooms <= done}
        assert ready, f"these rooms wait for each other: {sorted(rest)}"
        done |= ready
        rest = {room: rooms for room, rooms in rest.items() if room not in ready}


@pytest.mark.parametrize(
    ("name", "source", "rooms"),
    [
        ("board", "from kit import measure, board", {"measure", "board"}),
        ("board", "import kit.measure as m", {"measure"}),
        ("board", "def f():\n    from kit.measure import profile", {"measure.profile"}),
        ("board", "from . import measure", {"measure"}),
        ("prune.weights", "from .. import measure\nfrom .masks import read", {"measure", "prune.masks.read"}),
        ("prune", "from .weights import weights", {"prune.weights.weights"}),
        ("board", "import torch\nfrom kit import __version__", set()),
    ],
)
def test_imports_are_seen(name: str, source: str, rooms: set[str]) -> None:
    assert imported(name, source) == rooms


def test_listed_rooms_are_those_on_disk() -> None:
    rooms = {name for name in MODULES if "." not in name}
    assert set(kit.__all__) == rooms, "kit/__init__.py lists its rooms: __all__, the docstring."
    assert list(kit.__all__) == sorted(kit.__all__)
    assert set(kit.__all__) <= set(dir(kit))
    assert kit.__doc__ is not None
    in_docstring = {line.split()[0] for line in kit.__doc__.splitlines() if line.startswith("    ")}
    assert in_docstring == rooms
    with pytest.raises(AttributeError, match="kit has no module 'cellar'; it has .*data"):
        _ = kit.cellar


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_kit_is_cheap() -> None:
    """Best of five: the clock of a busy machine only ever adds."""
    code = (
        "import sys, time; start = time.perf_counter(); import kit; took = time.perf_counter() - start;"
        f"print(took * 1000, *{set(HEAVY)!r}.intersection(sys.modules))"
    )
    results = [run_python(code).split() for _ in range(5)]
    assert all(len(result) == 1 for result in results), f"import kit loads {results[0][1:]}"
    assert min(float(result[0]) for result in results) < IMPORT_MILLISECONDS
    # A room is entered on first use.
    code = "import kit; print(kit.data.__name__); from kit import data; assert kit.data is data"
    assert run_python(code) == "kit.data"
