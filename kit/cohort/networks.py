"""Many networks of one family in one set of batched tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import psutil
import torch
from torch import Tensor, nn

from kit import checks, models
from kit.cohort.members import Member
from kit.cohort.passes import Blocks, logits
from kit.data import Dataset
from kit.training import copy_of, predict

MEMORY_SHARE = 0.5  # of the memory that is free: the page and the notebook need some too


class Cohort(nn.Module):
    """K networks of one family, each with weights of its own, in one row of numbers.

    A weight [out, in] of the template becomes one tensor [K, out, in], so that one batched matrix product serves all
    networks. Narrower members are padded with zeros: a hidden unit whose weights are all zero answers 0 and gets a
    gradient of 0 through its ReLU, so it stays absent (a test checks that).

    Args:
        template: an `MLP` or `BagOfWords`; or any module of layers that `models.initialise` knows, without buffers.
            Not changed.
        members: one per network.
        start: first weights, one module per member; by default drawn from each member's seed, as the template's class
            would draw them.
        memory: bytes that the cohort may use; by default half of what is free.

    Raises:
        ValueError: no members; widths above the template's, or of a template without such; a template with
            buffers; another number of starts than of members, or a start of another shape.
        TypeError: a template whose layers cannot be drawn anew, or an argument of another type.
        MemoryError: the cohort would need more than `memory`; the message says how many members fit.
    """

    def __init__(
        self,
        template: nn.Module,
        members: Sequence[Member],
        *,
        start: Sequence[nn.Module] | None = None,
        memory: int | None = None,
    ) -> None:
        super().__init__()
        self.members = tuple(members)
        _check_family(template, self.members)
        if start is not None and len(start) != len(self.members):
            raise ValueError(f"start must have one module for each of the {len(members)} members; got {len(start)}.")
        self.template = copy_of(template).requires_grad_(False)
        self.shapes = _shapes(template)
        self.memory = memory
        # Weights, gradients (as they come, and in one row), two moments, two scratch rows.
        check_memory("the weights", 4 * 7 * self.n_parameters, len(self.members), memory)
        self.weights = nn.Parameter(torch.zeros(len(self.members) * self.n_parameters), requires_grad=False)
        of_width = {member.width: member for member in self.members}
        blocks, sized = self.blocks(), {width: _sized(template, member) for width, member in of_width.items()}
        for at, member in enumerate(self.members):
            if start is None:
                models.initialise(sized[member.width], member.seed)
            first = sized[member.width] if start is None else start[at]
            checks.instance("each of start", first, nn.Module, "a module")
            if _shapes(first) != _shapes(sized[member.width]):
                raise ValueError(f"start: each module must have the parameters of its member; number {at} has others.")
            for name, parameter in first.named_parameters():
                _corner(blocks[name][at], parameter).copy_(parameter.detach())

    def __len__(self) -> int:
        """The number of networks."""
        return len(self.members)

    @property
    def n_parameters(self) -> int:
        """Numbers in the template's parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def blocks(self) -> Blocks:
        """The batched parameters: views of `weights`, [K, *shape] each."""
        return self.views(self.weights.detach(), len(self))

    def views(self, row: Tensor, k: int) -> Blocks:
        """The parameters of `k` networks in one row of numbers. [k * P] -> [k, *shape] each."""
        parts = row.split([k * math.prod(shape) for shape in self.shapes.values()])
        return {name: part.view(k, *self.shapes[name]) for name, part in zip(self.shapes, parts, strict=True)}

    def forward(self, inputs: Tensor) -> Tensor:
        """Every network's logits for the same inputs; errors as of `predict`. [n, ...] -> [K, n, n_classes]."""
        predict(self.template, inputs[:1])  # refuses samples of another shape
        return logits(self.template, self.blocks(), inputs[None].expand(len(self), *inputs.shape)).transpose(1, 2)

    def model(self, index: int) -> nn.Module:
        """Network `index`, from 0, as an ordinary module of its own, in its own width.

        Raises:
            IndexError: no such member.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index must lie in 0 .. {len(self) - 1}; got {index}.")
        own = _sized(self.template, self.members[index])
        with torch.no_grad():
            for name, parameter in own.named_parameters():
                parameter.copy_(_corner(self.blocks()[name][index], parameter))
        return own.requires_grad_(True)

    def models(self) -> Iterator[nn.Module]:
        """All networks, one after the other."""
        return (self.model(index) for index in range(len(self)))

    def finite(self) -> Tensor:
        """Whether all weights of each network are numbers. -> [K], bool."""
        return torch.stack([block.flatten(1).isfinite().all(1) for block in self.blocks().values()]).all(0)


def hidden_widths(template: nn.Module) -> list[int]:
    """Widths of an MLP's hidden layers, and of a bag of words; none for another module."""
    if type(template) is models.BagOfWords:
        return [template.tokens.embedding_dim]
    return list(template.sizes[1:-1]) if type(template) is models.MLP else []


def template(dataset: Dataset, width: int) -> models.MLP | models.BagOfWords:
    """The small network that cohorts are made of, for a data set: an MLP; or a `BagOfWords`, for ids of tokens.

    Args:
        dataset: what it is to take.
        width: hidden units, or numbers a token; 0 is a single linear layer, for numbers alone (else a ValueError).
    """
    if dataset.tokens is not None:
        return models.BagOfWords(dataset.tokens.size, dataset.n_classes, width)
    return models.MLP((n_inputs(dataset), *[width] * (width > 0), dataset.n_classes))


def n_inputs(dataset: Dataset) -> int:
    """How many weights a hidden unit of `template` has: numbers of a sample, or ids that there are."""
    return dataset.train.inputs[0].numel() if dataset.tokens is None else dataset.tokens.size


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _sized(template: nn.Module, member: Member) -> nn.Module:
    """A module of the member's width, its weights not yet its own."""
    if member.width is not None and type(template) is models.BagOfWords:
        return models.BagOfWords(template.tokens.num_embeddings, template.head.out_features, member.width)
    if member.width is None or type(template) is not models.MLP:
        return copy_of(template)
    return models.MLP([template.sizes[0], *[member.width] * (len(template.sizes) - 2), template.sizes[-1]])


def _corner(block: Tensor, small: Tensor) -> Tensor:
    """The first entries of `block` along each side, as many as `small` has."""
    return block[tuple(map(slice, small.shape))]


def _check_family(template: nn.Module, members: Sequence[Member]) -> None:
    checks.instance("template", template, nn.Module, "a module")
    if not members:
        raise ValueError("members is empty; a cohort needs at least one.")
    for member in members:
        checks.instance("members", member, Member, "Member objects, as cohort.members(...) makes them")
    kind = type(template).__name__
    if any(True for _ in template.buffers()):
        raise ValueError(f"template: {kind} has buffers, which a cohort cannot keep for each member; take one without.")
    if any(isinstance(module, nn.modules.dropout._DropoutNd) for module in template.modules()):
        raise ValueError(f"template: {kind} has dropout of its own; give it to the members instead.")
    widths = hidden_widths(template)
    for name in () if widths else ("width", "dropout"):
        if any(getattr(member, name) for member in members):
            those = "bags of words, and in MLPs with a hidden layer only"
            raise ValueError(f"{name}: a cohort can vary it in {those}; the template is {kind}.")
    widest = max((member.width or 0 for member in members), default=0)
    if widths and widest > min(widths):
        raise ValueError(f"width must be at most the template's {min(widths)}; got {widest}.")


def check_memory(what: str, each: int, cohort: int, memory: int | None) -> None:
    """Refuse, by a MemoryError, `each` bytes for every member where that is above `memory` (None: half of the free)."""
    allowed = int(MEMORY_SHARE * psutil.virtual_memory().available) if memory is None else memory
    if cohort * each > allowed:
        asked, free = (f"{size / 1e9:.3g} GB" for size in (cohort * each, allowed))
        short = f"would take {asked}, and {free} may be used; {allowed // each} fit"
        raise MemoryError(f"members: {what} of {cohort} networks {short}.")
