"""Tuning by gradients: the slope of the validation loss in the hyper-parameters, and the way downhill.

| to | call |
|---|---|
| say what is trained and tuned | `problem = network(model, digits, ["weight_decay"], steps=100)` |
| the same of losses of your own | `Problem(train, score, start, space, hyper)` |
| train | `path = problem.path(problem.hyper)`, a list of states |
| take the slope | `Unrolled(back=20).at(problem, hyper)`, `Implicit(terms=10).at(...)`, `Differences().at(...)` |
| go downhill | `study = descend(problem, Implicit(10), budget=3000)` |
| find wrong labels | `clean(network(model, flipped, ["sample_weight"]), Unrolled(10))`, step by step |

All of it loads torch.
"""

from kit.search.gradient.descend import descend
from kit.search.gradient.hypergradient import Differences, Hypergradient, Implicit, Unrolled, Way
from kit.search.gradient.labels import Cleaned, auc, clean, flip, halves, sample_losses, trained
from kit.search.gradient.networks import RANGES, network
from kit.search.gradient.problem import Problem, State, Tensors

__all__ = ["RANGES", "Differences", "Hypergradient", "Implicit", "Problem", "State", "Tensors", "Unrolled", "Way"]
__all__ += ["descend", "network"]
__all__ += ["Cleaned", "auc", "clean", "flip", "halves", "sample_losses", "trained"]
