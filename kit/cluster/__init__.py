"""Many machines: the searches of `kit.search` on Ray; what needs Ray is loaded when it is first named.

| to | call |
|---|---|
| run a study on all cores of this machine | `run(study, objective, Bayes(), budget=60)`: as `study.run` |
| run several on the same workers' machine | `with local(workers=4): ...` |
| run it on a cluster | `run(..., address="host:6379")` |
| see who worked when | `run(..., on_span=print)`: a `Span` as a trial begins, and as it ends |
| a thousand workers in virtual time, without Ray | `simulate(study, objective, ASHA(), ...)` |
| have a method of the kit propose inside a `ray.tune.Tuner` | `RayMethod(Bayes())` |
| give Ray a space of the kit, and have one of Ray's here | `to_ray(space)`, `from_ray(param_space)` |
| have Ray stop trials where `ASHA` has its rungs | `asha(ASHA(max_epochs=27))` |

Ray is an extra: without it, whatever needs it is a ModuleNotFoundError that says so.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kit.cluster.loop import Span
from kit.cluster.ray_start import _ray
from kit.cluster.simulation import simulate

if TYPE_CHECKING:
    from kit.cluster.on_ray import run
    from kit.cluster.ray_start import local
    from kit.cluster.tune import RayMethod, asha, from_ray, to_ray

_PARTS = {"local": "ray_start", "run": "on_ray"} | dict.fromkeys(("RayMethod", "asha", "from_ray", "to_ray"), "tune")


def __getattr__(name: str) -> Any:
    """Load the part that has a name when it is first named; an AttributeError where there is no such name."""
    if name not in _PARTS:
        raise AttributeError(f"kit.cluster has no {name!r}; it has {', '.join(__all__)}.")
    if _PARTS[name] == "tune":
        _ray()  # refuses in one sentence
    return getattr(import_module(f"{__name__}.{_PARTS[name]}"), name)


__all__ = ["RayMethod", "Span", "asha", "from_ray", "local", "run", "simulate", "to_ray"]
