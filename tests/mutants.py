"""`python -m tests.mutants ROOM [SAMPLE]`: break one room of the kit on purpose, and count what its tests notice.

`make mutants` calls it for each room of ROOMS.

A mutant is a function with one small change: `<` for `<=`, `+` for `-`, an argument left out, a number one higher.
mutmut makes them all in a copy of the kit (folder `mutants/`), imports torch and the tests once, and forks a process
for each mutant. That runs those tests of the room that enter the function, up to the first that fails: the mutant is
killed. One that takes many times the usual time is killed too, since a hang is noticed; these are named, too.

Sentences are not changed, since tests look for their meaning. mutmut leaves code at the level of a module, and
functions with a decorator (properties), as they are. What a test makes while its module is imported comes from the
unbroken code: let it be made inside a test or a fixture.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libcst
from mutmut import __main__ as mutmut
from mutmut import configuration
from mutmut.mutation import mutators
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from scipy import stats

ROOMS = ("measure", "sizes", "files", "prune", "distill", "search")


def short_strings(node: libcst.BaseString) -> Iterator[libcst.BaseString]:
    """Change keys and names, but no sentences."""
    if " " not in libcst.Module([]).code_for_node(node):
        yield from mutators.operator_string(node)


def run(room: str, most: int | None) -> None:
    """Run the mutants of a room, or `most` of them drawn at random; print the survivors and the score."""
    operators: Any = mutators.mutation_operators  # a list, whatever its type says
    operators[:] = [(kind, short_strings if make is mutators.operator_string else make) for kind, make in operators]
    configuration._config = dataclasses.replace(
        configuration.config(),
        only_mutate=[f"kit/{room}.py", f"kit/{room}/*"],
        pytest_add_cli_args_test_selection=[str(path) for path in sorted(Path("tests").glob(f"test_{room}*.py"))],
    )
    collect, found = mutmut.collect_source_file_mutation_data, 0

    def drawn(*, mutant_names: Any) -> Any:
        nonlocal found
        mutants, files = collect(mutant_names=mutant_names)
        found = len(mutants)
        return random.Random(0).sample(mutants, min(found, most or found)), files

    mutmut.collect_source_file_mutation_data = drawn
    shutil.rmtree("mutants", ignore_errors=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch comes in: a fork loses the threads of its parent
    mutmut._run((), max_children=1)
    score: Counter[str] = Counter()
    for file, name, exit_code in sorted(drawn(mutant_names=())[0], key=lambda mutant: mutant[1]):
        status = status_by_exit_code[exit_code]
        score[status] += 1
        if status != "killed":
            changes = get_diff_for_mutant(name, path=file.path).splitlines()[3:]
            print("\n".join([f"\n{status}: {name}", *(line for line in changes if line.startswith(("-", "+")))]))
    killed, total = score["killed"] + score["timeout"], score.total()
    low, high = stats.binomtest(killed, total).proportion_ci(0.95, method="wilson")
    interval = f", {low:.0%} to {high:.0%}; {found} in all" if total < found else ""
    print(f"\n{room}: {killed} of {total} mutants killed ({killed / total:.1%}{interval}), {score['timeout']} by time.")


def main(room: str, sample: str = "") -> int:
    """Return exit code 2, with a sentence, for another room or a sample that is no number."""
    if room not in ROOMS or not (sample == "" or (sample.isdecimal() and int(sample))):
        print(f"MUTANTS must be some of {', '.join(ROOMS)}, SAMPLE 1 or more; got {room} {sample}.", file=sys.stderr)
        return 2
    run(room, int(sample) if sample else None)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
