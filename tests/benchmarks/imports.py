"""What `import kit` costs in a fresh process, on top of starting Python."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.benchmarks.registry import Say
from tests.benchmarks.rows import Row, Target

LIMIT_MS = 50.0
RUNS = 15


def benchmark(say: Say) -> Iterator[Row]:
    """Median of fresh processes with the import, minus the median of those without, in turn."""
    kit, bare = [], []
    for _ in range(RUNS):
        bare.append(_milliseconds("pass"))
        kit.append(_milliseconds("import kit"))
    say(f"python alone {statistics.median(bare):.0f} ms, with kit {statistics.median(kit):.0f} ms")
    ours = max(0.0, statistics.median(kit) - statistics.median(bare))
    what = f"`import kit`, on top of starting Python (limit {LIMIT_MS:.0f} ms)"
    yield Row.of("import", what, ours, LIMIT_MS, "ms", Target("at most", 1))


def _milliseconds(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return 1000 * (time.perf_counter() - began)
