"""Distil into one student of any kind: soft labels, or hints from a hidden layer first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import checks, models, training
from kit.cohort import UNLABELLED, check_temperature
from kit.cohort.losses import check_finite
from kit.data import Split
from kit.distill.loss import check_labels, unchecked

BATCH = 1024  # samples of a teacher's forward pass


def answers(teacher: nn.Module | Tensor, inputs: Tensor) -> Tensor:
    """The teacher's logits for every sample: computed once, or cached ones checked and passed on. -> [n, C], float32.

    Args:
        teacher: any module; or its logits [n, C] from an earlier call.
        inputs: [n, ...], at least one sample.

    Raises:
        ValueError: no inputs, inputs that the teacher cannot take, cached logits of another length, or NaN or infinity.
        TypeError: a teacher that is neither.
    """
    checks.instance("inputs", inputs, Tensor)
    if not len(inputs):
        raise ValueError("transfer is empty; it needs at least one sample.")
    checks.instance("teacher", teacher, (nn.Module, Tensor), "a module, or its logits as a tensor")
    if isinstance(teacher, nn.Module):
        logits = torch.cat([_asked("teacher", teacher, part) for part in inputs.split(BATCH)])
    else:
        logits = teacher.detach()
    if logits.ndim != 2 or len(logits) != len(inputs):
        came = tuple(logits.shape)
        raise ValueError(f"teacher's logits must have shape [{len(inputs)}, n_classes], one row a sample; got {came}.")
    check_finite("teacher's logits", logits)
    return logits.float()


def fit(
    student: nn.Module,
    teacher: nn.Module | Tensor,
    transfer: Split,
    *,
    epochs: int,
    temperature: float = 4.0,
    alpha: float = 0.9,
    **fit_settings: Any,
) -> training.History:
    """Train `student` in place on the labels of `transfer` and the teacher's soft labels (see `loss`).

    Args:
        student: any module that answers with as many classes as the teacher, and shares nothing with it that training
            changes.
        teacher: any module, not changed; or its logits for `transfer`, [n, C].
        transfer: samples, such as `digits.train` or one of this module's transfer sets.
        epochs: passes over the transfer set, 0 or more.
        temperature: 0.01 to 1e6.
        alpha: weight of the soft labels, in [0, 1].
        **fit_settings: as in `training.fit` (seed, lr, batch_size, optimiser, callbacks, cancel ...).

    Raises:
        ValueError: an argument out of range, an empty transfer set, teacher, student and samples that do not fit, or
            a student that shares parameters with the teacher.
        TypeError: an argument of another type.
        Cancelled, Diverged: as `training.fit`.
    """
    training.check_split("transfer", transfer)
    check_temperature(temperature)
    checks.share("alpha, the weight of the soft labels,", alpha)
    checks.instance("student", student, nn.Module, "a module")
    v = answers(teacher, transfer.inputs)  # [n, C]
    z = _asked("student", student, transfer.inputs[:1])
    if z.shape[1] != v.shape[1]:
        raise ValueError(f"student must answer as many classes as the teacher, {v.shape[1]}; got {z.shape[1]}.")
    _check_apart(student, teacher)
    check_labels("transfer's labels", transfer.labels, *v.shape)
    if alpha == 0 and int(transfer.labels.max()) == UNLABELLED:
        raise ValueError("transfer has no labelled sample, and alpha = 0 learns from labels alone; take alpha above 0.")

    def of_batch(logits: Tensor, rows: Tensor) -> Tensor:
        return unchecked(logits, v[rows], transfer.labels[rows], temperature, alpha)

    return training.minimise(student, transfer.inputs, of_batch, epochs=epochs, **fit_settings)


def features(model: nn.Module, layer: str, inputs: Tensor) -> Tensor:
    """What a layer answers, after ReLU, one row per sample. -> [n, F].

    Args:
        model: any module; put in evaluation mode meanwhile.
        layer: name of one of its modules, such as "fc1" or "layers.0".
        inputs: [n, ...].

    Raises:
        ValueError: no module of that name, or inputs that the model cannot take.
    """
    return _features("layer", model, layer, inputs)


def _features(argument: str, model: nn.Module, layer: str, inputs: Tensor) -> Tensor:
    checks.instance("inputs", inputs, Tensor)
    with _tapped(argument, model, layer) as read:
        return torch.cat([read(_asked("model", model, part)) for part in inputs.split(BATCH)])


def hint(
    student: nn.Module,
    teacher: nn.Module,
    transfer: Split,
    *,
    student_layer: str,
    teacher_layer: str,
    epochs: int,
    seed: int = 0,
    **fit_settings: Any,
) -> training.History:
    """Train the first layers of `student`, in place, to predict a hidden layer of the teacher: a hint.

    A linear regressor r maps the student's features u to the size of the teacher's w (see `standardised`); minimised
    is the mean of (r(u) - w)^2. The regressor is thrown away. Then train on with `fit`.

    Args:
        student: any module.
        teacher: any module, not changed.
        transfer: the samples; labels are not read.
        student_layer: name of the module whose output, after ReLU, is u.
        teacher_layer: the same for w.
        epochs: passes over the transfer set.
        seed: of the regressor's first weights and the order of the samples.
        **fit_settings: as in `training.fit` (lr, batch_size, cancel ...).

    Raises:
        ValueError: no layer of that name, an empty transfer set, or samples that a model cannot take.

    Source: Romero et al. (2015), FitNets, arXiv:1412.6550, equation 3.
    """
    training.check_split("transfer", transfer)
    checks.instance("student", student, nn.Module, "a module")
    checks.instance("teacher", teacher, nn.Module, "a module")
    _check_apart(student, teacher)
    checks.whole("seed", seed)
    wanted = standardised(_features("teacher_layer", teacher, teacher_layer, transfer.inputs))  # w, [n, F]
    size = _features("student_layer", student, student_layer, transfer.inputs[:1]).shape[1]
    regressor = models.MLP((size, wanted.shape[1]), seed=seed)
    with _tapped("student_layer", student, student_layer) as read:
        hinted, settings = _Hinted(student, regressor, read), {"epochs": epochs, "seed": seed, **fit_settings}
        return training.minimise(hinted, transfer.inputs, lambda r, rows: F.mse_loss(r, wanted[rows]), **settings)


def standardised(features: Tensor) -> Tensor:
    """Features as a student is to predict them: each with mean 0, all divided by one number, their spread.

    Raw ones of size 2 and more push the ReLUs of small students until many of them never fire again.

    Args:
        features: [n, F], at least two samples.

    Returns:
        [n, F], with standard deviation 1 over all entries; zeros where the features do not vary at all.
    """
    varying = features - features[:1]  # exactly 0 where a feature does not vary, where a mean is rounded
    centred = varying - varying.mean(0)
    return centred / centred.std().clamp(min=1e-12)


def _check_apart(student: nn.Module, teacher: nn.Module | Tensor) -> None:
    """Refuse a student that shares memory with its teacher, where training would change it."""
    if isinstance(teacher, Tensor):
        return
    tensors = (*teacher.named_parameters(), *teacher.named_buffers())
    taken = {tensor.untyped_storage().data_ptr(): name for name, tensor in tensors if tensor.numel()}
    changed = [pair for pair in student.named_parameters() if pair[1].requires_grad]
    with training.mode(student, training=True):  # which leaves frozen statistics in evaluation mode
        for path, module in student.named_modules():
            own = module.named_buffers(path, recurse=False) if module.training else ()
            changed += own
    for name, tensor in changed:
        if tensor.numel() and (theirs := taken.get(tensor.untyped_storage().data_ptr())):
            way = "so training would change both; give copy.deepcopy(student) as the student"
            raise ValueError(f"student shares its {name} with the teacher's {theirs}, {way}.")


@contextmanager
def _tapped(argument: str, model: nn.Module, layer: str) -> Iterator[Callable[[Tensor], Tensor]]:
    """Hand over a function from the output of a pass to what one layer answered in it, after ReLU. -> [b, F]."""
    checks.instance("model", model, nn.Module, "a module")
    named = dict(model.named_modules())
    if not layer or not isinstance(layer, str) or layer not in named:
        there = ", ".join(name for name in named if name)
        raise ValueError(f"{argument} must be a module of the model ({there}); got {layer!r}.")
    answered: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        features = output[0] if isinstance(output, tuple) else output  # of an LSTM, the states after the outputs
        answered[:] = [F.relu(features).flatten(1)]

    def read(output: Tensor) -> Tensor:
        if not answered:
            raise ValueError(f"layer: the module took no part in the pass that gave {tuple(output.shape)}.")
        return answered[0]

    with named[layer].register_forward_hook(keep):
        yield read


class _Hinted(nn.Module):
    """The student up to its layer, and the regressor on it."""

    def __init__(self, student: nn.Module, regressor: nn.Module, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.student, self.regressor, self._read = student, regressor, read
        self.training = student.training  # else normalisation of a student in evaluation mode would pass for frozen

    def forward(self, x: Tensor) -> Tensor:
        return self.regressor(self._read(self.student(x)))


def _asked(who: str, model: nn.Module, inputs: Tensor) -> Tensor:
    try:
        logits = training.predict(model, inputs)
    except ValueError as error:
        raise ValueError(f"{who} and transfer do not fit together: {str(error).removeprefix('dataset: ')}") from error
    if logits.ndim != 2:
        raise ValueError(f"{who} must answer with logits [n, n_classes]; got shape {tuple(logits.shape)}.")
    return logits
