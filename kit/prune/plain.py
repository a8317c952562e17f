"""Copies of models with plain weights: whatever makes a weight from other tensors is folded into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm

from kit import checks, training

_Fold = tuple[nn.Module, str, Callable[[nn.Module, str], Any]]


def plain(model: nn.Module, shared: Iterable[Tensor] = ()) -> nn.Module:
    """A copy of `model` with plain weights; modes and frozen parts are as they were.

    Weight and spectral normalisation (parametrisations, and the hooks of older versions), the masks of
    `torch.nn.utils.prune` and any other parametrisation become the weight that they make: a zero in it then stays a
    zero, while an emptied row of a normalised weight would be 0/0.

    Args:
        model: any module; not changed.
        shared: tensors of `model` that the copy has, too.

    Raises:
        TypeError: no `nn.Module`.
        ValueError: a model that cannot be copied.
    """
    checks.instance("model", model, nn.Module, "a torch.nn.Module")
    folded = training.copy_of(model, shared)
    folds = list(_folds(folded))
    learn = [any(p.requires_grad for key, p in module.named_parameters() if name in key) for module, name, _ in folds]
    for module, name, fold in folds:
        fold(module, name)
    for (module, name, _), learns in zip(folds, learn, strict=True):
        getattr(module, name).requires_grad_(learns)
    return folded


def as_plain(model: nn.Module) -> nn.Module:
    """The model itself where its weights are plain, so that nothing is copied; else a copy. Errors as of `plain`."""
    return model if is_plain(model) else plain(model)


def is_plain(model: nn.Module) -> bool:
    """Whether no weight is made from other tensors; TypeError for what is no `nn.Module`."""
    checks.instance("model", model, nn.Module, "a torch.nn.Module")
    return next(_folds(model), None) is None


def _folds(model: Any) -> Iterator[_Fold]:
    """The weights that are made from other tensors, each with what folds it."""
    for module in model.modules():
        if parametrize.is_parametrized(module):
            for name in module.parametrizations:
                yield module, name, _remove_parametrizations
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                yield module, hook.name, remove_weight_norm
            elif isinstance(hook, SpectralNorm):
                yield module, hook.name, _remove_spectral_norm
            elif isinstance(hook, prune.BasePruningMethod):
                yield module, hook._tensor_name, prune.remove


def _remove_spectral_norm(module: Any, name: str) -> None:
    """PyTorch's own leaves the hook that asks a file for the tensors which are no more."""
    remove_spectral_norm(module, name)
    hooks = module._load_state_dict_pre_hooks
    for key in [key for key, each in hooks.items() if isinstance(each.hook, SpectralNormLoadStateDictPreHook)]:
        del hooks[key]


def _remove_parametrizations(module: Any, _: str) -> None:
    """As `parametrize.remove_parametrizations`, which would take them from the original too: copies share a class."""
    if parametrize.is_parametrized(module):  # else done with the module's first one
        module.parametrizations.eval()  # spectral normalisation refines its vectors in training mode
        weights = {name: getattr(module, name).detach().clone() for name in module.parametrizations}
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        for name, weight in weights.items():
            setattr(module, name, nn.Parameter(weight))
