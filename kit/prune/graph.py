"""Which channels hang together: groups of layers, as plain data.

Found by torch-pruning's dependency graph (Fang et al. 2023, arXiv:2301.12900) on a copy of the model. The graph follows
sums, concatenations and flattening. What it says of a group is a proposal: `kit.prune.joints` tries it out.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch_pruning._helpers import _HybridIndex

from kit import checks, inference, training
from kit.data import Dataset
from kit.prune.blocks import whole_heads
from kit.prune.groups import Group, Side
from kit.prune.joints import CUTTABLE, LAYERS, first_line, hooked, is_depthwise, straightened, tensors, watch

Item = tuple[Any, bool, list[Any]]  # a node, whether by its outputs; the positions there, with the channel at each

MOST_VISITS = 64  # of one place in the model, each with the channels at other positions

_TOGETHER = "it works on all of them together, so those that stay would change"
_COMPUTED = (
    "its weight is computed anew at each call (torch.nn.utils.prune.remove and parametrize.remove_parametrizations "
    "make it a parameter again)"
)


FEW, LOOKED_AT = 4, 256  # samples


class Untraceable(ValueError):  # noqa: N818  (says what the model is)
    """The model's channels cannot be followed from layer to layer; its weights can still be pruned."""


@dataclass(frozen=True)
class Graph:
    """What can lose channels, and what cannot.

    Attributes:
        groups: by the name of the group's first layer.
        skipped: for other groups and layers, why not.
        splits: pairs of lengths into which a view splits an axis somewhere in the model, such as heads x positions;
            the first is 1 where there is one head.
    """

    groups: dict[str, Group]
    skipped: dict[str, str]
    splits: frozenset[tuple[int, int]]


def samples(dataset: Dataset) -> Tensor:
    """The few samples on which a model is followed and checked: of texts, the longest of the first.

    In a text of one token each head gives back what it got, whatever its query and key: it would show nothing.
    """
    inputs = dataset.train.inputs
    if dataset.tokens is None:
        return inputs[:FEW]
    return inputs[inputs[:LOOKED_AT].count_nonzero(1).argsort(descending=True, stable=True)[:FEW]]


def checked_on(model: nn.Module, dataset: Dataset) -> Tensor:
    """The samples on which a smaller model is checked: more than a few where only those reach some layers (experts)."""
    few, more = samples(dataset), dataset.train.inputs[:LOOKED_AT]
    layers = {name for name, module in model.named_modules() if isinstance(module, LAYERS)}
    ran = []
    for inputs in (few, more):
        with watch(model) as seen:
            training.predict(model, inputs)
        ran.append(seen.ran & layers)
        if ran[0] == layers:
            return few
    return few if ran[1] <= ran[0] else more


@torch.inference_mode(False)  # else there would be no autograd to follow
def follow(model: nn.Module, dataset: Dataset) -> Graph:
    """The groups of channels of `model`, which is not changed; those that make the answers themselves are no group.

    Raises:
        Untraceable: nothing can be followed at all.
        ValueError: the model cannot take the samples, or cannot be copied.
        TypeError: a `model` or `dataset` of another type.
    """
    checks.instance("model", model, nn.Module, "a torch.nn.Module")
    training.check_dataset(dataset)
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise untraceable(model, stopped(model, name, "TorchScript has compiled it"))
    probe, calls = straightened(inference.light_copy(model)), []
    config: Any = getattr(probe, "config", None)
    if hasattr(config, "use_cache"):
        config.use_cache = False  # keys and values kept for a next token are joined to none before them
    with hooked([probe.register_forward_hook(lambda _, __, answer: calls.append(answer))]):
        training.predict(probe, samples(dataset))  # samples that do not fit are refused as such
    n_answers = {values.shape[-1] for values in tensors(calls[0]) if values.ndim}
    for parameter in probe.parameters():
        parameter.requires_grad_(parameter.is_floating_point())  # a frozen layer would be lost from autograd
    names = {module: name for name, module in probe.named_modules()} | {p: n for n, p in probe.named_parameters()}
    graph, operations = tp.DependencyGraph(), _Operations()
    recurrent = dict.fromkeys((nn.RNN, nn.GRU), graph.REGISTERED_PRUNERS[tp.ops.OPTYPE.LSTM])
    hooks = [module.register_forward_hook(_linked) for module in names if isinstance(module, nn.RNNBase)]
    with hooked(hooks), watch(probe) as seen, training.mode(probe, training=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's; what fails is found below
        try:
            with torch.enable_grad(), operations:
                graph.build_dependency(
                    probe, samples(dataset), partial(_answer, operations), customized_pruners=recurrent, verbose=False
                )
        except training.Cancelled:
            raise
        except Exception as error:
            raise untraceable(model, stopped(probe, seen.active, first_line(error))) from error
    _free_single_channels(graph)
    tied, done = _tied(probe), set[Any]()
    groups, skipped = {}, {}
    for root in [module for module in graph.module2node if isinstance(module, LAYERS)]:
        if root in done or (width := _width(root, outward=True)) == 1:
            continue
        found: Group | str
        outward: dict[Any, Any]
        try:
            items = _items(graph, root)
        except Exception as error:  # of whatever kind: the library has no error of its own
            name, found, outward = names[root], stopped(model, names[root], first_line(error)), {root: None}
        else:
            outward = {node.module: node for node, by_outputs, _ in items if by_outputs}
            if not all(node.outputs for node in outward.values()) and width in n_answers:
                done.update(outward)
                continue  # the answers themselves
            name = next(name for module, name in names.items() if module in outward and isinstance(module, LAYERS))
            found = _stop(model, items, names, tied) or _group(model, items, names, width)
        reached = {key: module for key, module in _reached(graph, root, names).items() if isinstance(module, LAYERS)}
        if isinstance(found, str) or not reached.keys() <= {(side.layer, side.outward) for side in found.sides}:
            widths = {key: _width(module, key[1]) for key, module in reached.items()}
            if heads := whole_heads(model, widths, operations.splits, samples(dataset)):
                found = heads
                done.update(reached.values())
        done.update(outward)
        if isinstance(found, str):
            skipped[name] = found
        else:
            groups[name] = found
    for module, name in names.items():
        if isinstance(module, LAYERS) and name in seen.ran and module not in graph.module2node:
            why = f"{called(probe, seen.cut)} cuts it off from autograd" if seen.cut else "no answer depends on it"
            skipped[name] = stopped(probe, name, why)
    return Graph(groups, skipped, frozenset(operations.splits))


def is_usual(reason: str) -> bool:
    """Whether channels stay because a normalisation takes them together: so does the width of each transformer."""
    return f"Norm): {_TOGETHER}" in reason


def untraceable(model: nn.Module, reason: str, *others: str) -> Untraceable:
    """A refusal, of which the first reason is given in full; a reason goes on from the model's channels."""
    advice = "Its weights can be pruned instead: prune.weights(model, ratio=...)."
    more = f" (one of {len(others) + 1} such parts)" if others else ""
    return Untraceable(f"model: channels of {type(model).__name__} {reason}{more}. {advice}")


def stopped(model: nn.Module, name: str, why: str) -> str:
    """Why channels stay, in words that go on from them; `name` is that of a module or parameter."""
    return f"cannot be followed through {called(model, name)}: {why}"


def called(model: nn.Module, name: str) -> str:
    """A module or parameter in words: its name, and what it is."""
    module = dict(model.named_modules()).get(name)
    kind = "a parameter of no layer" if module is None else type(module).__name__
    return f"{name} ({kind})" if name else "the model itself"


class _Operations(TorchDispatchMode):
    """Notes what each operation takes, and the neighbouring lengths of each view."""

    def __init__(self) -> None:
        super().__init__()
        self.splits: set[tuple[int, int]] = set()
        self.taken: dict[int, Tensor] = {}  # by its place in memory, which it keeps as long as it is here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.taken.update((each.data_ptr(), each) for each in tensors([args, kwargs]))
        result = func(*args, **(kwargs or {}))
        if "view" in str(func) and isinstance(result, Tensor):
            self.splits.update(pair for pair in zip(result.shape, result.shape[1:], strict=False) if pair[1] > 1)
        return result


def _answer(operations: _Operations, model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """The answers, and what layers give that nobody takes: they lose inputs with the others."""
    given: list[Tensor] = []
    layers = [module for module in model.modules() if isinstance(module, LAYERS)]
    with hooked([layer.register_forward_hook(lambda _, __, out: given.extend(tensors(out))) for layer in layers]):
        answers = [answer for answer in tensors(inference.called(model, inputs)) if answer.grad_fn is not None]
    taken = operations.taken.keys() | {answer.data_ptr() for answer in answers}
    return answers + [each for each in given if each.grad_fn is not None and each.data_ptr() not in taken]


def _linked(layer: nn.Module, arguments: Any, output: Any) -> Any:
    """A forward hook: of all that a recurrent layer does, the graph sees that its answers depend on its input."""
    if not isinstance(arguments[0], Tensor):
        return output
    link = arguments[0].sum() * 0
    return tree_map(lambda value: value.detach() + link, output)


def _free_single_channels(graph: Any) -> None:
    """A single channel is spread over all others (a spatial gate): none of them hangs on it."""
    nodes = graph.module2node.items()
    single = {node for module, node in nodes if isinstance(module, LAYERS) and _width(module, outward=True) == 1}
    for node in graph.module2node.values():
        node.dependencies = [
            dep
            for dep in node.dependencies
            if not (dep.target in single and graph.is_out_channel_pruning_fn(dep.handler))
            and not (dep.source in single and graph.is_out_channel_pruning_fn(dep.trigger))
        ]


def _width(module: Any, outward: bool) -> int:
    """Channels that a layer or parameter has on one side."""
    if isinstance(module, nn.Parameter):
        return next((n for n in reversed(module.shape) if n > 1), 1)
    side = "out" if outward else "in"
    named = (f"{side}_features", f"{side}_channels", "num_features", "num_channels", "num_parameters", "embedding_dim")
    return next(getattr(module, name) for name in named if hasattr(module, name))


def _items(graph: Any, root: nn.Module) -> list[Item]:
    """All that hangs on the outputs of a layer. A channel may come back to it at another position, as in a gate."""
    start = [_HybridIndex(channel, channel) for channel in range(_width(root, outward=True))]
    stack = [(graph.module2node[root], graph.get_pruner_of_module(root).prune_out_channels, start)]
    found: dict[Any, Item] = {}
    visits = Counter[Any]()
    while stack:
        node, handler, pairs = stack.pop()
        key = (node, handler, tuple(pairs))
        if not pairs or key in found:
            continue
        visits[node, handler] += 1
        if visits[node, handler] > MOST_VISITS:  # rotary positions: each visit would open others, without end
            raise ValueError("its channels are mixed with each other")
        found[key] = node, graph.is_out_channel_pruning_fn(handler), pairs
        for dep in node.dependencies:
            if dep.is_triggered_by(handler):
                moved = pairs
                for mapping in dep.index_mapping:
                    moved = moved if mapping is None else mapping(moved)
                stack.append((dep.target, dep.handler, moved))
    return list(found.values())


def _reached(graph: Any, root: nn.Module, names: Mapping[Any, str]) -> dict[tuple[str, bool], Any]:
    """All that hangs on the outputs of a layer, at whichever channels: by its name, and whether by its outputs."""
    stack = [(graph.module2node[root], graph.get_pruner_of_module(root).prune_out_channels)]
    seen = set(stack)
    while stack:
        node, handler = stack.pop()
        onward = {(dep.target, dep.handler) for dep in node.dependencies if dep.is_triggered_by(handler)} - seen
        seen |= onward
        stack += onward
    found = {
        (names.get(node.module, ""), graph.is_out_channel_pruning_fn(handler)): node.module for node, handler in seen
    }
    return dict(sorted(found.items()))


def _tied(model: nn.Module) -> dict[int, str]:
    """By the id of a parameter that several modules hold: their names."""
    held: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                held.setdefault(id(parameter), []).append(name)
    return {key: " and ".join(holders) for key, holders in held.items() if len(holders) > 1}


def _stop(probe: nn.Module, items: list[Item], names: Mapping[Any, str], tied: Mapping[int, str]) -> str | None:
    """Why a group cannot be followed, where that can be seen without trying."""
    for node, _, pairs in items:
        module, why = node.module, ""
        if any(pair.root_idx is None for pair in pairs):
            why = "its channels are repeated"
        elif isinstance(module, nn.Parameter) or module not in names:
            continue
        elif not isinstance(module, CUTTABLE):
            why = _TOGETHER
        elif shared := [tied[id(p)] for p in module._parameters.values() if id(p) in tied]:
            why = f"{shared[0]} share a weight"
        elif "weight" not in module._parameters:
            why = _COMPUTED
        elif isinstance(module, LAYERS[1]) and 1 < module.groups == module.out_channels != module.in_channels:
            why = "each of its outputs has several inputs of its own"
        if why:
            return stopped(probe, names.get(module, ""), why)
    return None


def _group(probe: nn.Module, items: list[Item], names: Mapping[Any, str], n_channels: int) -> Group | str:
    """The group of these items, or why it cannot lose any channel."""
    found: dict[tuple[Any, bool], dict[Any, None]] = {}  # the pairs of each side, each once
    for node, outward, pairs in items:
        if node.module in names and not (isinstance(node.module, nn.PReLU) and node.module.num_parameters == 1):
            found.setdefault((node.module, outward), {}).update(dict.fromkeys(pairs))
    sides, edges, binding = [], [np.empty((0, 2), int)], ""
    for (module, out), marked in found.items():
        width = _width(module, out)
        positions, channels = np.array(list(marked)).T
        if max(positions) >= width:
            return stopped(probe, names[module], f"{max(positions) + 1} channels reach its {width}")
        blocks = 1 if is_depthwise(module) else getattr(module, "groups", getattr(module, "num_groups", 1))
        wide, norm = width // blocks, isinstance(module, nn.GroupNorm)
        if norm or blocks > 1 or len(set(positions)) < len(positions):  # whole groups, or as many of each block
            labels = positions // wide if norm else positions % wide
            edges.append(np.stack([channels, labels + edges[-1].max(initial=n_channels) + 1], 1))
            binding = names[module]
        at, first = np.unique(positions, return_index=True)
        sides.append(Side(names[module], out, width, torch.tensor(at), torch.tensor(channels[first])))
    links = np.concatenate(edges)  # from channels to what they share
    size = links.max(initial=n_channels) + 1
    _, units = connected_components(coo_matrix((np.ones(len(links)), links.T), shape=(size, size)), directed=False)
    if not units[:n_channels].any():
        return stopped(probe, binding, "all of them go together, or none")
    return Group(tuple(sides), torch.tensor(units[:n_channels], dtype=torch.int64))
