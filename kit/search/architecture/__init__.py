"""Architecture search: cells of a small space, every network of it trained once, and the ways to search it.

| to | call |
|---|---|
| write a cell, and read it | `parse("conv3 | skip conv1 | none pool")`, `str(cell)`, `cell.formula` |
| have its network | `models.CellNet(cell)` |
| read what all networks reached | `table = load()` |
| search under a limit | `search(table, Evolution(), budget=100, limits={"flops": 300_000})` |
| do it step by step | `Study(table.space(), maximise=True).run(table.objective(), LocalSearch(), budget=100)` |
| search by gradients | `found = darts(mnist)`, `found.cells`; under a limit `chosen(found.alphas[-1], cells)` |
| train a network again | `train(mnist, cell, seed)` |
| train one network that holds all, and score each cell by it | `supernet = share(mnist)`, `scores(supernet, mnist)` |
| score cells without training | `zero_cost(mnist, "synflow")` |

`Random`, `SuccessiveHalving` and `Bayes` of `kit.search` search the same space.
"""

# ruff: noqa: F401  (the names that the room offers)

from kit.cells import EDGES, OPERATIONS, Cell, networks, parse
from kit.search.architecture.methods import Evolution, LocalSearch
from kit.search.architecture.relaxation import Relaxation, chosen, darts, relaxed
from kit.search.architecture.space import space_of
from kit.search.architecture.supernet import Supernet, scores, share
from kit.search.architecture.table import COSTS, Table, TableError, load, search, train
from kit.search.architecture.zero_cost import SCORES, zero_cost
