"""Structure and hyper-parameters, chosen together: one objective, its space, and rivals that choose one by one.

| to | call |
|---|---|
| say what is chosen | `space()` |
| make networks, and measure accuracy and bytes | `problem = Problem(digits, teacher)`; `problem(config)` |
| make many as one cohort | `problem.batch(configs)`; `study.run(problem.batch, method, budget=200, batch=16)` |
| have the network that you would ship | `problem.make(config)` |
| measure it anew on other seeds | `problem.retest(config)` |
| say its recipe | `problem.words(config)` |
| choose one by one instead | `one_at_a_time(problem, budget=200)`, `by_hand(problem, budget=200)` |

A study of it is `Study(space(), objectives=OBJECTIVES)`.
"""

# ruff: noqa: F401  (the names that the room offers)

from kit.together.problem import CORNER, OBJECTIVES, PLAIN, Problem, space
from kit.together.rivals import by_hand, one_at_a_time
