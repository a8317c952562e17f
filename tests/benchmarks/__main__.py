"""`python -m tests.benchmarks`: BENCH names one benchmark, BENCH_JSON a file for the rows. `make bench` calls it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.benchmarks import (
    architecture,
    big,
    busy,
    channels,
    cluster,
    cohort,
    compression,
    distillation,
    gradient,
    imports,
    notebooks,
    pareto,
    search,
    slider,
    sweep,
    text,
)
from tests.benchmarks.registry import Benchmark, choose, run

MODULES = (
    *(slider, sweep, channels, cohort, distillation, compression, text, search, pareto),
    *(gradient, architecture, cluster, notebooks, busy, big),
)
BENCHMARKS: dict[str, Benchmark] = {each.__name__.rpartition(".")[2]: each.benchmark for each in MODULES}
BENCHMARKS["import"] = imports.benchmark  # no module can have that name


def main() -> int:
    """Run what the environment asks for; exit code 2 for a name that no benchmark has."""
    try:
        chosen = choose(os.environ.get("BENCH", ""), BENCHMARKS)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    path = os.environ.get("BENCH_JSON", "")
    return run(chosen, Path(path) if path else None)


if __name__ == "__main__":
    sys.exit(main())
