"""Ask any model for logits, whatever it wraps them in; its modes, its copy, and the statistics of its batches."""

from __future__ import annotations

import copy
import ctypes
import inspect
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, RLock, local
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from kit import checks, cores

M = TypeVar("M", bound=nn.Module)

SMALL_MODEL = 1_000_000  # parameters
BATCHES = (64, 256, 1024)  # samples a pass; a convolution's activations leave the cache early, a small MLP's late
FEW = 8  # samples of a first pass: of a large model 64 take a second
SLOW_SECONDS = 0.1  # for a pass of a model that is slower than that with 64
TRIES = 3  # timings of each, of which the shortest counts: other work on the machine only ever adds
REMEMBERED = 1000  # architectures

REFUSALS = (RuntimeError, ValueError, IndexError, TypeError, AssertionError)  # of modules that cannot take an input

_turn = RLock()  # of the pass that has switched torch's fused kernels off


class Cancelled(Exception):  # noqa: N818  (it is news, not an error)
    """Raised between two batches once the `cancel` event is set."""


def check_cancel(cancel: Event | None, when: str) -> None:
    """Raise `Cancelled` once `cancel` is set; `when` says where that was."""
    if cancel is not None and cancel.is_set():
        raise Cancelled(f"cancelled {when}.")


class _Watch(TorchDispatchMode):
    """Looks at an event before each operation of this thread, those of a backward pass, too."""

    def __init__(self, cancel: Event, when: str) -> None:
        super().__init__()
        self.cancel, self.when = cancel, when

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _watched.by is self and self.cancel.is_set():
            _watched.by = None  # once: what is put back afterwards is not disturbed
            check_cancel(self.cancel, self.when)
        return func(*args, **(kwargs or {}))


class _Watched(local):
    by: _Watch | None = None  # the outermost watch of a thread


_watched = _Watched()


@contextmanager
def interruptible(model: nn.Module, cancel: Event | None, when: str) -> Iterator[None]:
    """What torch does inside raises `Cancelled` soon after `cancel` is set, between two of its operations.

    For models that `is_small` does not count as such, whose batch may take seconds. For others nothing changes: it
    would cost each operation some microseconds, and a batch of theirs is a moment.
    """
    if cancel is None or _watched.by is not None or is_small(model):
        yield
        return
    _watched.by = _Watch(cancel, when)
    try:
        with _watched.by:
            yield
    finally:
        _watched.by = None


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits of one batch, in evaluation mode, without gradients; errors and what a model may answer as in `ask`."""
    checks.instance("model", model, nn.Module, "a torch.nn.Module")
    checks.instance("inputs", inputs, Tensor, "a tensor [n, ...]")
    with mode(model, training=False), cores.one_thread(small=is_small(model)):
        return ask(model, inputs)


def ask(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits of one batch in the mode that the model is in.

    Floating-point inputs are cast to the dtype of the model's weights, where all of these share one; ids of tokens come
    with the mask of `called`. Logits of half precision come as float32.

    Args:
        model: answers with logits, an object with `.logits`, a mapping with "logits", or a tuple or list that begins
            with logits [n, n_classes]. Auxiliary logits behind them (Inception in training) are left out.
        inputs: [n, ...].

    Raises:
        ValueError: the model refuses the inputs, or answers otherwise.
    """
    try:
        answer = called(model, inputs)
    except REFUSALS as error:
        raise ValueError(_refusal(model, inputs, " ".join(str(error).split()))) from error
    return logits_of(answer)


def called(model: nn.Module, inputs: Tensor) -> Any:
    """What `model` answers to a batch, as it comes.

    Ids of tokens come with `attention_mask`, int64 [n, length], 1 where there is a token, where the model takes such
    and its `config` does not say that nothing pads. What pads is the id that its `config` names, else 0: a RoBERTa,
    whose own is 1, needs `pad_token_id=0` for texts of `data.from_texts`. A model that takes its first argument by
    keyword only gets it so.
    """
    taken, parameters = as_taken(model, inputs), inspect.signature(model.forward).parameters
    first = next(iter(parameters.values()), None)
    named: dict[str, Tensor] = {}
    pad = getattr(getattr(model, "config", None), "pad_token_id", 0)
    if "attention_mask" in parameters and not inputs.is_floating_point() and pad is not None:
        named["attention_mask"] = (taken != pad).long()
    if first is not None and first.kind is first.KEYWORD_ONLY:
        return model(**{first.name: taken}, **named)
    return model(taken, **named)


def are_probabilities(logits: Tensor) -> bool:
    """Whether each row of [n, C] is non-negative and sums to one: a softmax that every loss would take once more."""
    return bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all())


class Pace:
    """How many samples a pass of one architecture is best given, by the passes timed so far."""

    def __init__(self) -> None:
        self.seconds: defaultdict[int, list[float]] = defaultdict(list)  # processor time of each pass, by its samples

    def size(self, n: int) -> int:
        """What to take next of `n` samples: sizes are tried upwards until one is slower a sample than the last."""
        best = min(BATCHES[0], n)
        for size in sorted({min(batch, n) for batch in BATCHES}):
            tried = len(self.seconds[size])
            margin = 1.0 if tried >= TRIES else 1.5  # a clear case needs no third timing
            if tried > 1 and self.rate(size) > margin * self.rate(best):
                break
            if tried < TRIES:
                return size
            best = size
        return best

    def rate(self, size: int) -> float:
        """Seconds a sample in passes of `size` samples; where none was timed, of the most below that were."""
        timed = max((each for each, took in self.seconds.items() if took and each <= size), default=size)
        return min(self.seconds[timed], default=0.0) / timed

    def predict(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """As the function `predict`, timed."""
        began = time.thread_time()
        logits = predict(model, inputs)
        if len(self.seconds[len(inputs)]) < TRIES:
            self.seconds[len(inputs)].append(time.thread_time() - began)
        return logits


_paces: dict[int, Pace] = {}


def pace_of(model: nn.Module, inputs: Tensor) -> Pace:
    """The pace of models like this one, on samples of this shape and as many threads."""
    checks.instance("model", model, nn.Module, "a torch.nn.Module")
    modules = tuple(type(module) for module in model.modules())
    weights = tuple((weight.shape, weight.dtype) for weight in model.parameters() if not is_lazy(weight))
    key = hash((modules, weights, inputs.shape[1:], torch.get_num_threads()))
    if len(_paces) > REMEMBERED:
        _paces.clear()
    return _paces.setdefault(key, Pace())


def batch_for(model: nn.Module, inputs: Tensor, *, seconds: float) -> int:
    """How many samples `model` answers in about `seconds`: 64, 256 or 1024, by timing passes over the first 64.

    Args:
        model: as for `ask`.
        inputs: [n, ...]; a ValueError where there is none.
        seconds: above 0. Where 64 samples take longer, it is 64 all the same; but of a large model (see `is_small`)
            that needs more than 0.1 s for them, as many as it answers in that time, 8, 16 or 32, by passes over 8.
    """
    checks.number("seconds", seconds, above=0)
    if not len(inputs):
        raise ValueError("inputs is empty; it needs at least one sample.")
    pace, first, few = pace_of(model, inputs), inputs[: BATCHES[0]], inputs[:FEW]
    if not is_small(model):
        while len(pace.seconds[len(few)]) < TRIES - 1:
            pace.predict(model, few)
        if (many := SLOW_SECONDS / max(pace.rate(len(few)), 1e-9)) < BATCHES[0]:
            return max((batch for batch in (FEW, 2 * FEW, 4 * FEW) if batch <= many), default=FEW)
    while len(pace.seconds[len(first)]) < TRIES:
        pace.predict(model, first)
    most = seconds / max(pace.rate(len(first)), 1e-9)
    return max((batch for batch in BATCHES if batch <= most), default=BATCHES[0])


def logits_of(answer: Any) -> Tensor:
    """The logits in what a model answers; errors and what that may be as in `ask`."""
    logits = _logits(answer)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _logits(answer: Any) -> Tensor:
    if isinstance(answer, Tensor):
        return answer
    inner = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
    came = f"{type(answer).__name__}({', '.join(map(str, answer))})" if isinstance(answer, Mapping) else ""
    if inner is None and isinstance(answer, (tuple, list)):
        tensors = [each for each in answer if isinstance(each, Tensor)]
        # Of features beside logits, nothing says which is which.
        if tensors and tensors[0].ndim == 2 and len({each.shape for each in tensors if each.ndim == 2}) == 1:
            inner = tensors[0]
        came = f"{type(answer).__name__} of {', '.join(str(tuple(each.shape)) for each in tensors) or 'no tensor'}"
    if not isinstance(inner, Tensor):
        wanted = "logits [n, n_classes], alone, as .logits or ['logits'], or first in a tuple"
        raise ValueError(f"model must answer with {wanted}; got {came or type(answer).__name__}.")
    return inner


def as_taken(model: nn.Module, inputs: Tensor) -> Tensor:
    """The inputs in the dtype of the model's floating-point weights."""
    first = next(model.parameters(), inputs)  # nearly always of the inputs' dtype: nothing else is looked at
    if first.dtype == inputs.dtype or not inputs.is_floating_point() or len(_dtypes(model)) != 1:
        return inputs
    cast = inputs.to(_dtypes(model).pop())
    # Whole numbers that would change may be the ids of tokens.
    ids = torch.equal(inputs, inputs.round()) and not torch.equal(cast.to(inputs.dtype), inputs)
    return inputs if ids else cast


def _dtypes(model: nn.Module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}


def _refusal(model: nn.Module, inputs: Tensor, error: str) -> str:
    """The sentence for samples that the model refuses: about their dtype where the error is, else about their shape."""
    shape, axes, hint = tuple(inputs.shape[1:]), "[n, channels, height, width]", ""
    came, weights = _word(inputs.dtype), " and ".join(sorted(map(_word, _dtypes(model))))
    tables = [each.num_embeddings for each in model.modules() if isinstance(each, nn.Embedding)]
    if "index out of range" in error and not inputs.is_floating_point() and tables:
        least, most = int(inputs.min()), int(inputs.max())
        came = f"{inputs.shape[1]} ids a sample, from {least} to {most}"
        return f"dataset: the model, with tables of {' and '.join(map(str, tables))} rows, cannot take {came}: {error}"
    if "no padding token" in error:
        hint = " (Set model.config.pad_token_id to the id that pads: 0 in data.from_texts.)"
        return f"dataset: the model cannot take several samples at once: {error.rstrip('.')}.{hint}"
    if "Long" in error and inputs.is_floating_point():
        hint = " (A model of token ids takes a data set that has them: data.from_texts.)"
        return f"dataset: the model cannot take samples in {came}: {error}{hint}"
    if weights != came and any(word in error for word in ("type", "not implemented for")):
        hint = " (model.float() makes all weights float32.)"
        return f"dataset: the model, with weights in {weights}, cannot take samples in {came}: {error}{hint}"
    if len(shape) == 2:
        hint = f" (An image needs a channel axis: {axes}; for grey images inputs[:, None].)"
    elif len(shape) == 3 and shape[-1] in (1, 3) and shape[0] > 4:
        hint = f" (Channels come before height and width: {axes}.)"
    return f"dataset: the model cannot take samples of shape {shape}: {error}{hint}"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def is_small(model: nn.Module) -> bool:
    """Whether one thread computes it: with less than a million parameters, several wait for each other too often."""
    return sum(each.numel() for each in model.parameters() if not is_lazy(each)) < SMALL_MODEL


@contextmanager
def unfused() -> Iterator[None]:
    """Attention from single operations, which can be counted and differentiated twice; fused kernels cannot.

    One thread at a time: torch switches the kernels for the whole process, and what two restored at once stayed off.
    """
    with _turn, sdpa_kernel(SDPBackend.MATH):
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put `model` in training or evaluation mode, and each of its modules back into its own mode at the end.

    Frozen normalisation stays frozen in training: a normalisation layer that is in evaluation mode while the model is
    not, or whose own parameters are not trained.
    """
    before = [(module, module.training) for module in model.modules()]
    norms = [module for module, _ in before if training and isinstance(module, _NormBase)]
    frozen = [norm for norm in norms if _frozen(norm, model.training)]
    model.train(training)
    for each in frozen:
        each.training = False
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training


def _frozen(layer: nn.Module, model_training: bool) -> bool:
    """A whole model in evaluation mode says nothing about one layer; weights that are not trained do."""
    own = list(layer.parameters(recurse=False))
    return not layer.training and (model_training or (bool(own) and not any(each.requires_grad for each in own)))


def copy_of(model: M, shared: Iterable[Tensor] = ()) -> M:
    """A deep copy of `model`, but for the tensors `shared`, which both then have; ValueError where it cannot be copied.

    Tensors that a forward pass left on its modules (a weight masked by torch.nn.utils.prune) are copied without their
    history, on which `copy.deepcopy` fails.
    """
    kept = _tensors([list(vars(module).values()) for module in model.modules()])
    memo: dict[int, Any] = {id(each): each.detach().clone() for each in kept if not each.is_leaf}
    memo |= {id(each): each for each in shared}
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # whatever its attributes raise
        reason = " ".join(str(error).split())
        way_out = "keep no locks, files or results with gradients on it, and make hooks permanent or remove them"
        raise ValueError(f"model: {type(model).__name__} cannot be copied ({reason}); {way_out}.") from error


def give_back() -> None:
    """Give memory that is free back to the system at once: of a large model's the C library keeps much (glibc)."""
    with suppress(AttributeError, OSError, TypeError):  # other libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)


def light_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` with parameters of its own in the same memory: none of them may be written to, only replaced.

    A removal is tried out on several copies: a large model is not to be in memory as often.
    """
    shared = {old for old in model.parameters() if type(old) is nn.Parameter and not old.is_inference()}
    copied = copy_of(model, shared)
    made: dict[nn.Parameter, nn.Parameter] = {}  # tied ones stay tied
    for module in copied.modules():
        for name, old in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if old in shared:
                setattr(module, name, made.setdefault(old, nn.Parameter(old.detach(), old.requires_grad)))
    return copied


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a value, and in lists, tuples and mappings of such."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, Mapping)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(each)


def has_statistics(model: nn.Module) -> bool:
    """Whether `model` has a batch normalisation with running statistics, which `renew_statistics` would renew."""
    return bool(_with_statistics(model))


def _with_statistics(model: nn.Module) -> list[_BatchNorm]:
    return [each for each in model.modules() if isinstance(each, _BatchNorm) and each.running_mean is not None]


def renew_statistics(
    model: nn.Module, inputs: Tensor, *, batch_size: int = 256, cancel: Event | None = None
) -> nn.Module:
    """A copy of `model` with the statistics of its batch normalisation measured anew: no label, no gradient.

    After pruning, the running means and variances are those of activations that are no more. Each becomes the mean over
    the batches of what the layer now gets; other layers stay in evaluation mode. Source: Li et al. 2020, EagleEye,
    arXiv:2007.02491, section 3.3 (adaptive batch normalisation).

    Args:
        model: not changed. Frozen layers are renewed, too; those without running statistics have nothing to renew.
        inputs: [n, ...], such as `digits.train.inputs`; at least 2.
        batch_size: samples per pass, 2 or more. They are shared out evenly, so that each batch counts the same: a
            batch has up to twice as many.
        cancel: looked at between batches.

    Raises:
        Cancelled: `cancel` was set.
        ValueError: an argument out of range, or inputs that the model cannot take.
    """
    checks.instance("model", model, nn.Module, "a torch.nn.Module")
    checks.instance("inputs", inputs, Tensor, "a tensor [n, ...]")
    checks.whole("batch_size", batch_size, 2)
    if len(inputs) < 2:
        raise ValueError(f"inputs must hold at least 2 samples, for a variance; got {len(inputs)}.")
    renewed = copy_of(model)
    layers = _with_statistics(renewed)
    momenta = [layer.momentum for layer in layers]
    parts = inputs.tensor_split(max(1, len(inputs) // int(batch_size))) if layers else ()
    with mode(renewed, training=False), torch.no_grad():
        for layer in layers:
            layer.reset_running_stats()
            layer.training, layer.momentum = True, None  # the mean of all batches, each with the same weight
        for done, part in enumerate(parts):
            check_cancel(cancel, when := f"after {done} of {len(parts)} batches for the statistics")
            with interruptible(renewed, cancel, when):
                ask(renewed, part)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return renewed
