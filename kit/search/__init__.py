"""Search: one loop, many methods, one record for each trial, and a budget in trials or epochs.

| to | call |
|---|---|
| say what may be chosen | `Space({"lr": Float(1e-4, 1, log=True), "width": Int(4, 64)})` |
| choose a method | `Grid`, `Random`, `Sobol`, `SuccessiveHalving`, `Hyperband`, `ASHA`, `Bayes`, `Listed` |
| search | `Study(space, maximise=True).run(objective, Random(seed=0), budget=60)` |
| search for several things at once | `Study(space, objectives={"error": Goal(), "bytes": Goal(log=True)})` |
| choose a method for several | `Grid`, `Random`, `Sobol`, `Listed`; `NSGA2`, `ParEGO`, `EHVI` (two only) |
| practise where the answer is known | `functions.branin()`, `functions.zdt1()` ... |
| ask which hyper-parameter mattered | `importance(space, study.trials)` |
| search for scikit-learn | `estimators.CrossValidation(Ridge(), inputs, labels)` |
| search for networks | `networks.Networks(digits, epochs=20)` (loads torch) |
| search where every cell is trained | `landscape.train(digits, space)`, `landscape.search(...)` (loads torch) |
| tune by slopes | `gradient.network(...)`, `gradient.descend(...)` (loads torch) |
| search for architectures | `architecture.search(architecture.load(), ...)` (loads torch) |

An objective is any callable: a configuration in, a number out.
"""

from importlib import import_module
from types import ModuleType

from kit.search import functions
from kit.search.bayes import Bayes
from kit.search.ehvi import EHVI
from kit.search.grid import Grid, Listed
from kit.search.halving import ASHA, Hyperband, SuccessiveHalving
from kit.search.importance import importance
from kit.search.nsga2 import NSGA2
from kit.search.parego import ParEGO
from kit.search.pareto import Goal, Goals
from kit.search.random import Random, Sobol
from kit.search.space import Choice, Config, Float, Int, Space
from kit.search.study import Study
from kit.search.study_file import StudyError
from kit.search.trials import Method, Proposal, Trial


def __getattr__(name: str) -> ModuleType:
    """Load the parts that need much when they are first named; an AttributeError where there is no such part."""
    if name not in ("estimators", "networks", "landscape", "gradient", "architecture"):
        raise AttributeError(f"kit.search has no part {name!r}.")
    return import_module(f"{__name__}.{name}")


__all__ = ["Choice", "Config", "Float", "Int", "Space", "functions", "importance"]
__all__ += ["EHVI", "NSGA2", "ParEGO"]
__all__ += ["ASHA", "Bayes", "Grid", "Hyperband", "Listed", "Random", "Sobol", "SuccessiveHalving"]
__all__ += ["Goal", "Goals", "Method", "Proposal", "Study", "StudyError", "Trial"]
