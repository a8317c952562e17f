"""Networks to make smaller: an MLP, the chapter's ConvNet (repaired), a small ResNet, a transformer, networks of cells.

Each draws its first weights by a `seed` of its own: building one neither reads nor moves the global random state.

| for | there is |
|---|---|
| rows of numbers | `MLP(sizes)`, `lenet_300_100()` |
| images | `ConvNet()`, `LeNet5()`, `ResNet()` |
| images, by a cell | `CellNet(cell)` |
| texts | `Transformer(vocabulary, length)`, `BagOfWords(vocabulary)` |
| fresh weights | `initialise(model, seed)` |
"""

# ruff: noqa: F401  (the names that the room offers)

from kit.models.cells import CellGraph, CellNet, cell_operation
from kit.models.images import MLP, ConvNet, LeNet5, ResidualBlock, ResNet, lenet_300_100
from kit.models.parts import initialise
from kit.models.texts import Attention, BagOfWords, Transformer, TransformerBlock, mean_over
