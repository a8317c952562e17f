"""Who is in a cohort, with which samples, and how their networks live in one row of numbers."""

from __future__ import annotations

import copy
import itertools
import math
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold
from torch import nn

from kit import cohort, models, training
from kit.cohort import UNLABELLED, Cohort, Member, members, networks
from kit.cohort.members import HYPER_PARAMETERS, held_out, train_rows
from kit.data import Dataset, Split
from kit.training import Callback, Progress
from tests.nets import vector

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Split:
    return digits.train.first(100)


# Members


def test_members_are_every_combination() -> None:
    found = members(temperature=[1, 4], seed=range(3), lr=(rate for rate in (0.1, 0.2)), alpha=0.5)
    each = itertools.product((1, 4), range(3), (0.1, 0.2))
    assert found == tuple(
        Member(temperature=temperature, seed=seed, lr=lr, alpha=0.5) for temperature, seed, lr in each
    )
    assert members() == (Member(),)
    assert (Member(seed=3).order_seed, Member(seed=3, order=0).order_seed) == (3, 0)
    assert members(seed=np.arange(2), lr=np.float64(0.1)) == members(seed=range(2), lr=0.1)
    assert members(width=[None, 3], lr=np.array([0.1])) == (Member(lr=0.1), Member(lr=0.1, width=3))
    assert set(HYPER_PARAMETERS) == set(vars(Member()))


REFUSED: dict[str, list[tuple[str, Any]]] = {
    "must be above 0": [("lr", 0), ("lr", math.nan), ("lr", math.inf)],
    "must lie in 0.01 .. 1e+06": [("temperature", -1.0), ("temperature", 0), ("temperature", 2e6)],
    "must be 0 or more": [("seed", -1), ("order", -2), *(("weight_decay", bad) for bad in (-0.1, math.nan, math.inf))],
    "must lie in [0, 1)": [("momentum", 1.0), ("beta1", -0.1), ("beta2", 1), ("dropout", 1.0)],
    "must lie in [0, 1]": [("label_smoothing", 1.1), ("alpha", -0.1), ("alpha", math.nan)],
    "must be 1 or more": [("width", 0), ("n_train", 0)],
    "must be 2 or more": [("folds", 1)],
    "must lie in 0 .. 4": [("fold", 5), ("fold", -1)],
    "must be a number": [
        *(("lr", bad) for bad in ("0.1", True, None)),
        *((name, "1") for name in ("temperature", "alpha", "dropout", "label_smoothing", "weight_decay", "momentum")),
    ],
    "must be a whole number": [
        *(("seed", bad) for bad in (None, 0.5, "0", True)),
        *((name, 8.0) for name in ("width", "n_train", "order", "fold", "folds")),
    ],
}


@pytest.mark.parametrize("allowed", REFUSED)
def test_members_refuse_what_is_out_of_range_or_no_number(allowed: str) -> None:
    for name, value in REFUSED[allowed]:
        error = TypeError if "number" in allowed else ValueError
        with pytest.raises(error, match=re.escape(f"{name} {allowed}; got {value!r}")):
            members(**{name: value})


def test_members_refuse_what_is_empty_or_shared_by_all() -> None:
    with pytest.raises(ValueError, match="lr needs at least one value; got none"):
        members(lr=[])
    with pytest.raises(TypeError, match="a cohort cannot vary 'batch_size'; it can vary seed, lr, "):
        members(batch_size=[32, 64])


# Samples


def test_rows_are_the_first_samples_outside_the_fold(few: Split) -> None:
    assert train_rows(Member(), few.labels).tolist() == list(range(100))
    assert train_rows(Member(n_train=7), few.labels).tolist() == list(range(7))
    cut = StratifiedKFold(3, shuffle=True, random_state=0).split(few.inputs.flatten(1), few.labels)
    for fold, (outside, inside) in enumerate(cut):
        member = Member(seed=fold, fold=fold, folds=3)
        assert train_rows(member, few.labels).tolist() == outside.tolist()
        assert held_out(member, few.labels).tolist() == inside.tolist()
        assert train_rows(Member(fold=fold, folds=3, n_train=9), few.labels).tolist() == outside[:9].tolist()


def test_samples_that_are_not_there_are_refused(few: Split) -> None:
    rare, unlabelled = torch.tensor([0] * 10 + [1] * 3), torch.tensor([0, 1, 0, 1, UNLABELLED])
    for member, labels, sentence in (
        (Member(n_train=101), few.labels, "n_train must be at most the 100 samples there are; got 101"),
        (Member(n_train=100, folds=2, fold=0), few.labels, r"n_train must be at most the \d\d samples .*; got 100"),
        (Member(fold=0, folds=4), rare, "folds: a class has 3 samples in train, too few for 4 folds"),
        (Member(fold=0, folds=2), unlabelled, "folds: train has samples without a label"),
    ):
        with pytest.raises(ValueError, match=sentence):
            train_rows(member, labels)


# Networks


def test_first_weights_are_those_of_the_class() -> None:
    template = models.MLP((64, 8, 10), seed=99)
    together = Cohort(template, members(seed=range(2), width=[None, 3]))
    assert len(together) == 4
    assert together.n_parameters == vector(template).numel()
    for net, (seed, width) in zip(together.models(), [(0, 8), (0, 3), (1, 8), (1, 3)], strict=True):
        assert isinstance(net, models.MLP)
        assert net.sizes == (64, width, 10)
        assert torch.equal(vector(net), vector(models.MLP((64, width, 10), seed=seed)))


def test_first_weights_may_be_given(few: Split) -> None:
    start = [models.MLP((64, 8, 10), seed=7), models.MLP((64, 3, 10), seed=8)]
    before = [vector(net) for net in start]
    together = Cohort(models.MLP((64, 8, 10)), [Member(), Member(width=3)], start=start)
    assert all(torch.equal(vector(net), own) for net, own in zip(together.models(), before, strict=True))
    cohort.fit(together, few, epochs=1)
    assert not any(torch.equal(vector(net), own) for net, own in zip(together.models(), before, strict=True))
    assert all(torch.equal(vector(net), own) for net, own in zip(start, before, strict=True))


@pytest.mark.parametrize(
    "template",
    [
        models.MLP((64, 10)),
        models.MLP((64, 9, 7, 10)),
        models.ConvNet(channels=(2, 3), hidden=5),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)),
    ],
    ids=["linear", "mlp", "convnet", "other"],
)
def test_logits_are_those_of_the_networks_taken_out(few: Split, template: nn.Module) -> None:
    together = Cohort(template, members(seed=range(3)))
    cohort.fit(together, few, epochs=1)
    z = together(few.inputs)
    assert z.shape == (3, 100, 10)
    for at, net in enumerate(together.models()):
        assert type(net) is type(template)
        assert all(parameter.requires_grad for parameter in net.parameters())
        torch.testing.assert_close(z[at], training.predict(net, few.inputs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_narrow_networks_stay_narrow(few: Split, optimiser: Any) -> None:
    """Their padding is exactly zero after training, decay and dropout; in their own width they answer the same."""
    those = members(width=[1, 4, None], weight_decay=[0, 0.1], dropout=[0, 0.5], lr=0.02)
    together = Cohort(models.MLP((64, 7, 6, 10)), those)
    before = together.weights.clone()
    cohort.fit(together, few, epochs=3, batch_size=20, optimiser=optimiser)
    assert not torch.equal(together.weights, before)
    first, second, last = (block for name, block in together.blocks().items() if name.endswith("weight"))
    biases = [block for name, block in together.blocks().items() if name.endswith("bias")]
    for at, member in enumerate(those):
        width = member.width or 7
        padding = [first[at, width:], second[at, width:], second[at, :, width:], last[at, :, width:]]
        padding += [biases[0][at, width:], biases[1][at, width:]]
        assert all(int(part.count_nonzero()) == 0 for part in padding)
        assert sum(part.numel() for part in padding) > 0 or member.width is None
        net = together.model(at)
        assert isinstance(net, models.MLP)
        assert net.sizes == ((64, width, width, 10) if member.width else (64, 7, 6, 10))
        torch.testing.assert_close(training.predict(net, few.inputs), together(few.inputs)[at], atol=1e-5, rtol=1e-4)


def test_the_template_is_left_alone(few: Split) -> None:
    template = models.MLP((64, 8, 10), seed=4).eval()
    template.layers[0].requires_grad_(False)
    before = copy.deepcopy(template.state_dict())
    together = Cohort(template, members(seed=range(2), width=[3, None]))
    cohort.fit(together, few, epochs=1)
    weights, net = together.weights.clone(), together.model(0).train()
    nn.utils.vector_to_parameters(torch.full_like(vector(net), 3), net.parameters())
    assert torch.equal(together.weights, weights)  # a network taken out lives its own life
    assert all(torch.equal(before[name], tensor) for name, tensor in template.state_dict().items())
    assert not template.training
    assert [parameter.requires_grad for parameter in template.parameters()] == [False, False, True, True]
    assert all(parameter.grad is None for parameter in template.parameters())


@pytest.mark.parametrize(
    ("template", "those", "sentence"),
    [
        (models.MLP(), [], "members is empty; a cohort needs at least one"),
        (models.ResNet(), [Member()], "template: ResNet has buffers, which a cohort cannot keep for each member"),
        (models.ConvNet(), [Member(width=3)], "width: .* MLPs with a hidden layer only; the template is ConvNet"),
        (models.ConvNet(), [Member(dropout=0.1)], "dropout: .* MLPs with a hidden layer only; .* is ConvNet"),
        (models.MLP((64, 10)), [Member(width=3)], "width: .* MLPs with a hidden layer only; the template is MLP"),
        (models.MLP((64, 10)), [Member(), Member(dropout=0.1)], "dropout: .* MLPs with a hidden layer only"),
        (models.MLP((64, 9, 7, 10)), [Member(width=8)], "width must be at most the template's 7; got 8"),
        (nn.Sequential(nn.Linear(8, 8), nn.Dropout()), [Member()], "template: Sequential has dropout of its own"),
    ],
)
def test_cohorts_refuse(template: nn.Module, those: list[Member], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Cohort(template, those)


def test_what_is_no_member_no_layer_or_no_start_is_refused() -> None:
    template, those, odd = models.MLP((64, 8, 10)), members(seed=range(2)), nn.Module()
    odd.scale = nn.Parameter(torch.ones(3))  # that no layer draws
    with pytest.raises(TypeError, match="members must be Member objects, .* got 3"):
        Cohort(template, [Member(), 3])  # type: ignore[list-item]
    for settings, sentence in (
        ({"template": models.MLP}, "template must be a module; got <class"),
        ({"start": ["one", "two"]}, "each of start must be a module; got 'one'"),
    ):
        with pytest.raises(TypeError, match=sentence):
            Cohort(**{"template": template, "members": those, **settings})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"model: cannot initialise the module \(Module\)"):
        Cohort(odd, [Member()])
    with pytest.raises(ValueError, match="start must have one module for each of the 2 members; got 1"):
        Cohort(template, those, start=[template])
    for other in (models.MLP((64, 9, 10)), models.MLP((64, 7, 10)), models.MLP((64, 10))):
        with pytest.raises(ValueError, match="start: each module must have the parameters .* number 1 has others"):
            Cohort(template, those, start=[template, other])
        with pytest.raises(ValueError, match="start: each module must have the parameters .* number 0 has others"):
            Cohort(template, [Member(width=3)], start=[other])
    for index in (-1, 2):
        with pytest.raises(IndexError, match=rf"index must lie in 0 .. 1; got {index}"):
            Cohort(template, those).model(index)


# Memory


def fitting(error: MemoryError) -> int:
    found = re.search(r"networks would take \S+ GB, and \S+ GB may be used; (\d+) fit\.", str(error))
    assert found is not None
    return int(found[1])


def test_weights_beyond_the_memory_are_refused_before_they_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    template = models.MLP((64, 8, 10))
    a_member = 7 * 4 * vector(template).numel()  # weights, gradients, moments and scratch, four bytes each
    with monkeypatch.context() as patch, pytest.raises(MemoryError, match="members: the weights of 50") as refused:
        patch.setattr(models, "initialise", lambda *_: pytest.fail("weights were drawn"))
        Cohort(template, members(seed=range(50)), memory=40 * a_member)
    assert fitting(refused.value) == 40
    assert len(Cohort(template, members(seed=range(40)), memory=40 * a_member)) == 40
    monkeypatch.setattr(networks.psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * a_member))
    assert len(Cohort(template, members(seed=range(4)))) == 4  # half of what is free
    with pytest.raises(MemoryError, match="members: the weights of 5") as refused:
        Cohort(template, members(seed=range(5)))
    assert fitting(refused.value) == 4


class Unwanted(Callback):
    def on_batch_end(self, progress: Progress) -> None:
        pytest.fail("a step was taken")


@pytest.mark.parametrize("template", [models.MLP((64, 8, 10)), models.ConvNet(channels=(2, 3), hidden=5)])
def test_batches_beyond_the_memory_are_refused_before_a_step(few: Split, template: nn.Module) -> None:
    """As many as the message says do fit, and one more does not."""
    memory = 1_500_000

    def train(count: int, batch_size: int = 100, callback: Callback | None = None) -> None:
        together = Cohort(template, members(seed=range(count)), memory=memory)
        before = together.weights.clone()
        try:
            cohort.fit(together, few, epochs=1, batch_size=batch_size, callbacks=[callback or Callback()])
        finally:
            assert torch.equal(before, together.weights) is (callback is not None)

    with pytest.raises(MemoryError, match="members: a batch of 100 of 30 networks") as refused:
        train(30, callback=Unwanted())
    count = fitting(refused.value)
    assert 0 < count < 30
    train(count)
    train(count, batch_size=10**9)  # a batch holds no more samples than there are
    with pytest.raises(MemoryError, match=f"; {count} fit"):
        train(count + 1, callback=Unwanted())
