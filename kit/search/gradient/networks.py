"""Networks as problems: what of their training can be tuned by its slope."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from kit import checks, training
from kit.cohort.losses import check_finite
from kit.data import Dataset, Split
from kit.inference import as_taken, ask, called, copy_of, logits_of, unfused
from kit.search.gradient.problem import Problem, Tensors, coordinates_of, values_of
from kit.search.space import Float

Per = Literal["network", "layer", "weight"]

RANGES: dict[str, Float] = {
    "weight_decay": Float(1e-6, 1, log=True),
    "lr": Float(1e-3, 1, log=True),
    "label_smoothing": Float(0, 0.9),
    "shift": Float(0, 1),
    "temperature": Float(0.5, 20, log=True),
    "alpha": Float(0, 1),
    "sample_weight": Float(0, 1),
}
BEGIN = {"weight_decay": 1e-3, "lr": 0.2, "label_smoothing": 0.0, "shift": 0.0}  # where nothing else is said
BEGIN |= {"temperature": 2.0, "alpha": 0.5, "sample_weight": 1.0}


def network(
    model: nn.Module,
    dataset: Dataset,
    tune: Sequence[str] = ("weight_decay",),
    *,
    per: Per = "network",
    pieces: int = 1,
    steps: int = 100,
    batch_size: int | None = None,
    momentum: float = 0.9,
    seed: int = 0,
    teacher: nn.Module | None = None,
    space: Mapping[str, Float] | None = None,
    **values: float,
) -> Problem:
    """The training of a network as a problem: what of it is tuned, and where all of it begins.

    The training loss is the mean over the samples of s ((1 - alpha) CE + alpha T^2 KL), and half of the sum of weight
    decay times squared weight, whose slope is that of torch.optim.SGD. The validation loss is the mean cross-entropy.

    Args:
        model: any module that torch can differentiate twice and that answers the same each time. It is copied, and
            trained and scored in the mode that it is in: call `model.eval()` before, and it is trained without
            dropout, its batch normalisation with the statistics that it has.
        dataset: train fits, validation scores; test is not read.
        tune: names of `RANGES`. "lr" may be a schedule of `pieces`; "shift" moves each image by up to so many pixels
            along both axes, to another place in each step, while zeros enter; "temperature" and "alpha" are those of
            distillation and need a teacher; "sample_weight" is one number s for each training sample.
        per: of the weight decay: one for the "network", for each "layer" or for each "weight".
        pieces: equal parts of the training with a learning rate each, 1 or more.
        steps: of one training, 1 or more.
        batch_size: samples a step; None takes all in each, and the training is a smooth descent.
        momentum: in [0, 1).
        seed: of the batches and of the shifts.
        teacher: whose answers the network learns from as well.
        space: other ranges than those of `RANGES`.
        values: where tuning begins, or what is not tuned, which may be 0, too. Without them lr is 0.2, weight_decay
            0.001, label_smoothing and shift 0, temperature 2, alpha 0.5 with a teacher, sample_weight 1.

    Raises:
        ValueError: an unknown name, a value out of its range, `per` or `pieces` of what is not tuned, what alpha
            switches off, shifts of what is no image, weights of other dtypes than float32 or float64, a model that
            changes or draws with each answer (batch normalisation or dropout in training mode), or one that torch
            cannot differentiate twice, or does so wrongly.
        TypeError: an argument of another kind.
    """
    training.check_fits(model, dataset)
    checks.one_of("per", per, get_args(Per))
    checks.whole("pieces", pieces, 1, checks.whole("steps", steps, 1))
    checks.instance("tune", tune, (list, tuple), "a list of names")
    _check_names(tune, values, space or {}, teacher)
    for argument, given, name in (("per", per != "network", "weight_decay"), ("pieces", pieces > 1, "lr")):
        if given and name not in tune:
            raise ValueError(f"{argument} is of the {name}, which is not tuned; tune must name it.")
    begin, ranges = BEGIN | ({} if teacher else {"alpha": 0.0}) | values, RANGES | dict(space or {})
    for name in {**values, **dict.fromkeys(tune)}:
        _check_value(name, begin[name], ranges[name], tuned=name in tune)
    for name, alone in (("temperature", 0), ("label_smoothing", 1)):
        if name in tune and "alpha" not in tune and begin["alpha"] == alone:
            raise ValueError(f"{name} has no slope where alpha is {alone}; give another alpha, or tune it as well.")
    copied, n = copy_of(model), len(dataset.train)
    weights = _weights(copied)
    dtype = next(iter(weights.values())).dtype
    classes = _check_same(copied, dataset.train.inputs[:2])
    train, validation = (
        replace(split, inputs=as_taken(copied, split.inputs)) for split in (dataset.train, dataset.validation)
    )
    if train.inputs.ndim != 4 and ("shift" in tune or begin["shift"]):
        raise ValueError(f"shift moves images [n, channels, height, width]; got {tuple(train.inputs.shape)}.")
    size = n if batch_size is None else checks.whole("batch_size", batch_size, 1)
    rows = batches(n, size, steps, torch.Generator().manual_seed(checks.whole("seed", seed)))
    taught = None if teacher is None else _taught(teacher, dataset, classes).to(dtype)
    shape: dict[str, tuple[int, ...]] = {"sample_weight": (n,), "lr": (pieces,) if pieces > 1 else ()}
    parts, layer, sizes = dict[str, tuple[str, ...]](), None, torch.tensor([each.numel() for each in weights.values()])
    if per == "layer":
        parts["weight_decay"] = layers = tuple(dict.fromkeys(map(_layer, weights)))
        shape["weight_decay"] = (len(layers),)
        layer = torch.tensor([layers.index(_layer(name)) for name in weights]).repeat_interleave(sizes)
    elif per == "weight":
        shape["weight_decay"] = (int(sizes.sum()),)
    losses = _Training(copied, _places(copied), layer, train, validation, begin, ranges, rows, taught, seed)
    hyper = dict[str, Tensor]()
    for name in tune:
        place = torch.tensor(begin[name], dtype=dtype)
        hyper[name] = coordinates_of(ranges[name], place).expand(shape.get(name, ())).clone()
    tuned = {name: ranges[name] for name in tune}
    with _differentiable(copied):
        problem = Problem(losses.loss, losses.score, weights, tuned, hyper, steps, begin["lr"], momentum, parts)
        with problem.one_thread():
            _check_curvature(lambda weights: losses.loss(weights, problem.hyper, 0), problem.start)
    return problem


@dataclass(frozen=True, eq=False)
class _Training:
    """Both losses of a network as functions of its weights and hyper-parameters."""

    model: nn.Module
    places: Mapping[str, str]  # of each, the name of the weight that is there
    layer: Tensor | None  # of each weight, its number where each layer has a decay, [P]
    train: Split
    validation: Split
    begin: Mapping[str, float]
    ranges: Mapping[str, Float]
    batches: Sequence[Tensor | slice]
    taught: Tensor | None  # [n, C]
    seed: int

    def loss(self, weights: Tensors, hyper: Tensors, at: int) -> Tensor:
        """Of the training batch of step `at`."""
        rows = self.batches[at % len(self.batches)]
        tuned = {name: values_of(self.ranges[name], each) for name, each in hyper.items()}
        value: dict[str, Any] = {**self.begin, **tuned}
        x, y = self.train.inputs[rows], self.train.labels[rows]
        log_p = self._log_p(weights, self._shifted(x, value["shift"], at))  # [b, C]
        smoothing, alpha, heat = value["label_smoothing"], value["alpha"], value["temperature"]
        each = F.nll_loss(log_p, y, reduction="none")  # [b]
        if isinstance(smoothing, Tensor) or smoothing:
            each = (1 - smoothing) * each - smoothing * log_p.mean(1)
        if self.taught is not None:
            log_q, log_p = F.log_softmax(self.taught[rows] / heat, 1), F.log_softmax(log_p / heat, 1)
            each = (1 - alpha) * each + alpha * heat**2 * (log_q.exp() * (log_q - log_p)).sum(1)
        own = value["sample_weight"]
        if isinstance(own, Tensor) or own != 1:
            each = each * (own[rows] if isinstance(own, Tensor) else own)
        return each.mean() + self._penalty(weights, value["weight_decay"])

    def score(self, weights: Tensors, hyper: Tensors) -> Tensor:
        """Mean cross-entropy on the validation split."""
        return F.nll_loss(self._log_p(weights, self.validation.inputs), self.validation.labels)

    def _log_p(self, weights: Tensors, x: Tensor) -> Tensor:
        named = {f"model.{place}": weights[name] for place, name in self.places.items()}
        normed = any(name.endswith((".original1", "_v")) for name in weights)
        # One thread at a time, as `unfused` sees to: `functional_call` exchanges the model's weights while it runs.
        with _differentiable(self.model), unfused(), _Formulas() if normed else nullcontext():
            logits = logits_of(functional_call(_Called(self.model), named, (x,), tie_weights=False))
        return F.log_softmax(logits, 1)

    def _penalty(self, weights: Tensors, decay: Any) -> Tensor:
        row = torch.cat([weights[name].flatten() for name in dict.fromkeys(self.places.values())])
        if self.layer is not None:
            decay = decay.index_select(0, self.layer)
        return (decay * row) @ row / 2

    def _shifted(self, x: Tensor, shift: Any, at: int) -> Tensor:
        """Each image moved by up to `shift` pixels along both axes, as `at` draws it; zeros enter. [b, C, H, W].

        Between two pixels it is their mean, weighted by their distance, so that the shift has a slope.
        """
        if not isinstance(shift, Tensor) and not shift:
            return x
        draw = torch.rand(2, len(x), 1, 1, generator=torch.Generator().manual_seed(self.seed + 1_000_003 * (at + 1)))
        for way in draw.to(x.dtype) * 2 - 1:  # [b, 1, 1], the whole range is -1 .. 1
            far = shift * way.abs()
            whole = far.detach().floor().clamp(min=0)  # so differences about 0 go on along a line
            place = torch.arange(x.shape[-1])
            away = torch.where(way < 0, place[:, None] - place, place - place[:, None])  # [b, from, to]
            moves = (away == whole) * (1 - far + whole) + (away == whole + 1) * (far - whole)
            x = (x @ moves[:, None]).mT  # one axis, then the other
        return x


class _Formulas(TorchFunctionMode):
    """Weight normalisation as a formula: the second derivative of torch's kernel takes the norm for a constant."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._weight_norm:
            v, g, dim = args
            return v * (g / torch.norm_except_dim(v, 2, dim))
        return func(*args, **(kwargs or {}))


class _Called(nn.Module):
    """The model, called as everywhere: ids of tokens come with a mask where it takes one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.training = model, model.training

    def forward(self, x: Tensor) -> Any:
        return called(self.model, x)


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[None]:
    """Say in one sentence what torch cannot differentiate; refusals of the kit's own pass."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, ValueError):
            raise
        reason = " ".join(str(cause).split()).partition(". ")[0].rstrip(".")
        way_out = "replace what is named there, or take mode='reverse' where only forward mode fails"
        raise ValueError(f"model: torch cannot differentiate {type(model).__name__} ({reason}); {way_out}.") from error


def _weights(model: nn.Module) -> Tensors:
    """Copies of what is trained."""
    found = {name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad}
    if not found:
        raise ValueError("model has no parameter to train; at least one must have requires_grad=True.")
    if {each.dtype for each in found.values()} not in ({torch.float32}, {torch.float64}):
        way_out = "model.float() makes them float32"
        raise ValueError(f"model must have weights in float32 or float64 alone, for slopes of slopes; {way_out}.")
    return found


def _places(model: nn.Module) -> dict[str, str]:
    """Of every place of a trained weight its name, the first of its places: shared weights have several."""
    names = {each: name for name, each in model.named_parameters() if each.requires_grad}
    every = model.named_parameters(remove_duplicate=False)
    return {place: names[each] for place, each in every if each.requires_grad}


def _check_same(model: nn.Module, inputs: Tensor) -> int:
    """Refuse a model that draws or changes with each answer, which has no slope; otherwise how many logits it gives."""
    before = {name: each.clone() for name, each in model.named_buffers()}
    with training.drawing(0)(), torch.no_grad():
        state = torch.get_rng_state()
        logits = ask(model, inputs)
        drawn = not torch.equal(state, torch.get_rng_state())
    changed = [name for name, each in model.named_buffers() if not torch.equal(each, before[name])]
    if drawn or changed:
        what = f"{changed[0]} changes with each answer" if changed else "it draws anew for each answer"
        way_out = "call model.eval() to keep its statistics and leave nothing out, or take nn.GroupNorm"
        raise ValueError(f"model: {what}, so no slope holds; {way_out}.")
    return logits.shape[1]


def _check_curvature(loss: Callable[[Tensors], Tensor], start: Tensors) -> None:
    """Refuse layers without second derivatives, or with wrong ones, of most of which u L_ww v is not v L_ww u."""

    def slope_of(of: Tensor, **along: Any) -> Tensor:
        found = torch.autograd.grad(of, list(weights.values()), create_graph=True, **along)
        return torch.cat([each.flatten() for each in found])

    weights = {name: each.clone().requires_grad_() for name, each in start.items()}
    with torch.enable_grad():
        slope = slope_of(loss(weights))
        u, v = torch.randn(2, len(slope), generator=torch.Generator().manual_seed(0)).to(slope)
        of_u, of_v = slope_of(slope, grad_outputs=u), slope_of(slope, grad_outputs=v)
    slope.sum().backward()  # reaches nodes that only say they cannot
    size = u.norm() * of_v.norm() + v.norm() * of_u.norm()
    if (u @ of_v - v @ of_u).abs() > 50 * torch.finfo(slope.dtype).eps * size:
        raise RuntimeError("its second derivatives are wrong: they are not symmetric")


def _check_names(
    tune: Sequence[str], values: Mapping[str, float], space: Mapping[str, Float], teacher: nn.Module | None
) -> None:
    if not tune:
        raise ValueError("tune is empty; it must name one hyper-parameter or more.")
    known = [name for name in RANGES if teacher or name not in ("temperature", "alpha")]
    for argument, names in {"tune": tune, "values": values, "space": space}.items():
        checks.named(argument, names, known, "tuned" if teacher else "tuned without a teacher")
    for name, each in space.items():
        checks.instance(f"space[{name!r}]", each, Float, "a Float: a whole number or a choice has no slope")


def _check_value(name: str, value: Any, allowed: Float, *, tuned: bool) -> None:
    if not allowed.holds(checks.number(name, value)) and (tuned or value):
        raise ValueError(
            f"{name} must be {allowed}{'' if tuned else ', or 0'}; got {value!r}: space= gives a wider one."
        )


def _taught(teacher: nn.Module, dataset: Dataset, classes: int) -> Tensor:
    """The teacher's logits of the training samples, [n, C]."""
    training.check_fits(teacher, dataset)
    logits = training.predict(teacher, dataset.train.inputs)
    if logits.shape[1] != classes:
        raise ValueError(f"teacher must answer with {classes} logits, as the model does; got {logits.shape[1]}.")
    check_finite("the teacher's logits", logits)
    return logits


def _layer(name: str) -> str:
    """The layer that a weight belongs to, also where the weight is computed by a parametrisation."""
    return name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0] or name


def batches(n: int, size: int, steps: int, generator: torch.Generator) -> Sequence[Tensor | slice]:
    """Rows of each step, [b]: new orders of all samples, one after the other; all of them where none is left out."""
    if size >= n:
        return [slice(None)]
    found: list[Tensor] = []
    while len(found) < steps:
        found += [rows for rows in torch.randperm(n, generator=generator).split(size) if len(rows) == size]
    return found[:steps]
