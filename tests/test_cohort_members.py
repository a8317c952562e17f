"""Who is in a cohort, with which samples, and how their networks live in one row of numbers."""

from __future__ import annotations

import copy
import math
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from kit import cohort, models, training
from kit.cohort import UNLABELLED, Cohort, Member, members, networks
from kit.cohort.members import HYPER_PARAMETERS, held_out, train_rows
from kit.data import Dataset, Split
from kit.training import Callback, Progress

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Split:
    return digits.train.first(100)


def vector(net: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach()


# Members


def test_members_are_every_combination() -> None:
    found = members(temperature=[1, 4], seed=range(3), lr=(rate for rate in (0.1, 0.2)), alpha=0.5)
    assert found == tuple(
        Member(temperature=temperature, seed=seed, lr=lr, alpha=0.5)
        for temperature in (1, 4)
        for seed in range(3)
        for lr in (0.1, 0.2)
    )
    assert members() == (Member(),)
    assert members(width=[None, 3], lr=np.array([0.1])) == (Member(lr=0.1), Member(lr=0.1, width=3))
    assert set(HYPER_PARAMETERS) == set(vars(Member()))


def test_the_order_follows_the_seed_unless_it_is_given() -> None:
    assert Member(seed=3).order_seed == 3
    assert Member(seed=3, order=0).order_seed == 0


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("lr", 0, "lr must be above 0; got 0"),
        ("lr", math.nan, "lr must be above 0; got nan"),
        ("lr", math.inf, "lr must be above 0; got inf"),
        ("temperature", -1.0, "temperature must be above 0; got -1.0"),
        ("seed", -1, "seed must be 0 or more; got -1"),
        ("order", -2, "order must be 0 or more; got -2"),
        ("weight_decay", -0.1, "weight_decay must be 0 or more; got -0.1"),
        ("weight_decay", math.nan, "weight_decay must be 0 or more; got nan"),
        ("weight_decay", math.inf, "weight_decay must be 0 or more; got inf"),
        ("momentum", 1.0, r"momentum must lie in \[0, 1\); got 1.0"),
        ("beta1", -0.1, r"beta1 must lie in \[0, 1\); got -0.1"),
        ("beta2", 1, r"beta2 must lie in \[0, 1\); got 1"),
        ("dropout", 1.0, r"dropout must lie in \[0, 1\); got 1.0"),
        ("label_smoothing", 1.1, r"label_smoothing must lie in \[0, 1\]; got 1.1"),
        ("alpha", -0.1, r"alpha must lie in \[0, 1\]; got -0.1"),
        ("alpha", math.nan, r"alpha must lie in \[0, 1\]; got nan"),
        ("width", 0, "width must be 1 or more; got 0"),
        ("n_train", 0, "n_train must be 1 or more; got 0"),
        ("folds", 1, "folds must be 2 or more; got 1"),
        ("fold", 5, "fold must lie in 0 .. folds - 1 = 4; got 5"),
        ("fold", -1, "fold must lie in 0 .. folds - 1 = 4; got -1"),
        ("lr", [], "lr needs at least one value; got none"),
    ],
)
def test_members_refuse_what_is_out_of_range(name: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        members(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("lr", "0.1", "lr must be a number; got '0.1'"),
        ("lr", True, "lr must be a number; got True"),
        ("lr", None, "lr must be a number; got None"),
        ("seed", None, "seed must be a number; got None"),
        ("seed", 0.5, "seed must be a whole number; got 0.5"),
        ("width", 8.0, "width must be a whole number; got 8.0"),
        ("batch_size", [32, 64], "a cohort cannot vary 'batch_size' for each member; it can vary seed, lr, "),
    ],
)
def test_members_refuse_what_is_no_number(name: str, value: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        members(**{name: value})


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


def test_folds_cut_the_split_with_the_same_class_shares() -> None:
    labels = torch.tensor([0] * 30 + [1] * 20 + [2] * 10)
    parts = [held_out(Member(fold=fold), labels) for fold in range(5)]
    assert sorted(torch.cat(parts).tolist()) == list(range(60))
    assert all(labels[part].bincount().tolist() == [6, 4, 2] for part in parts)


def test_samples_that_are_not_there_are_refused(few: Split) -> None:
    with pytest.raises(ValueError, match="n_train must be at most the 100 samples there are; got 101"):
        train_rows(Member(n_train=101), few.labels)
    with pytest.raises(ValueError, match=r"n_train must be at most the \d\d samples there are; got 100"):
        train_rows(Member(n_train=100, fold=0, folds=2), few.labels)
    rare = torch.tensor([0] * 10 + [1] * 3)
    with pytest.raises(ValueError, match="folds: a class has 3 samples in train, too few for 4 folds"):
        train_rows(Member(fold=0, folds=4), rare)
    with pytest.raises(ValueError, match="folds: train has samples without a label"):
        held_out(Member(fold=0, folds=2), torch.tensor([0, 1, 0, 1, UNLABELLED]))


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
    before = copy.deepcopy(start)
    together = Cohort(models.MLP((64, 8, 10)), [Member(), Member(width=3)], start=start)
    assert all(torch.equal(vector(net), vector(own)) for net, own in zip(together.models(), start, strict=True))
    cohort.fit(together, few, epochs=1)
    assert not any(torch.equal(vector(net), vector(own)) for net, own in zip(together.models(), start, strict=True))
    assert all(torch.equal(vector(first), vector(own)) for first, own in zip(before, start, strict=True))


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


def test_a_network_taken_out_lives_its_own_life(few: Split) -> None:
    together = Cohort(models.MLP((64, 8, 10)), members(seed=range(2)))
    before, net = together.weights.clone(), together.model(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(3)
    assert torch.equal(together.weights, before)
    assert not torch.equal(vector(together.model(1)), vector(net))


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
    together.model(0).train()
    assert all(torch.equal(before[name], tensor) for name, tensor in template.state_dict().items())
    assert not template.training
    assert [parameter.requires_grad for parameter in template.parameters()] == [False, False, True, True]
    assert all(parameter.grad is None for parameter in template.parameters())


def test_finite_finds_the_weight_that_is_no_number() -> None:
    together = Cohort(models.MLP((64, 8, 10)), members(seed=range(4)))
    together.blocks()["layers.1.bias"][1, 2] = math.nan
    together.blocks()["layers.0.weight"][3, 0, 5] = math.inf
    assert together.finite().tolist() == [True, False, True, False]


class Drawn(nn.Module):
    """Holds a parameter that no layer draws."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(
    ("template", "those", "sentence"),
    [
        (models.MLP(), [], "members is empty; a cohort needs at least one"),
        (models.ResNet(), [Member()], "template: ResNet has buffers .* which a cohort cannot keep for each member"),
        (models.ConvNet(), [Member(width=3)], "width: .* MLPs with a hidden layer only; the template is ConvNet"),
        (models.ConvNet(), [Member(dropout=0.1)], "dropout: .* MLPs with a hidden layer only; .* is ConvNet"),
        (models.MLP((64, 10)), [Member(width=3)], "width: .* MLPs with a hidden layer only; the template is MLP"),
        (models.MLP((64, 10)), [Member(), Member(dropout=0.1)], "dropout: .* MLPs with a hidden layer only"),
        (models.MLP((64, 9, 7, 10)), [Member(width=8)], "width must be at most the template's 7; got 8"),
    ],
)
def test_cohorts_refuse(template: nn.Module, those: list[Member], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Cohort(template, those)


def test_what_is_no_member_or_no_layer_is_refused() -> None:
    with pytest.raises(TypeError, match="members must be Member objects, .* got 3"):
        Cohort(models.MLP(), [Member(), 3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"model: cannot initialise the module \(Drawn\)"):
        Cohort(Drawn(), [Member()])


@pytest.mark.parametrize("other", [models.MLP((64, 9, 10)), models.MLP((64, 7, 10)), models.MLP((64, 10))])
def test_a_start_of_another_shape_is_refused(other: nn.Module) -> None:
    template, those = models.MLP((64, 8, 10)), members(seed=range(2))
    with pytest.raises(ValueError, match="start must have one module for each of the 2 members; got 1"):
        Cohort(template, those, start=[template])
    with pytest.raises(ValueError, match="start: each module must have the parameters .* number 1 has others"):
        Cohort(template, those, start=[template, other])
    with pytest.raises(ValueError, match="start: each module must have the parameters .* number 0 has others"):
        Cohort(template, [Member(width=3)], start=[other])


@pytest.mark.parametrize("index", [-1, 2])
def test_a_member_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match=rf"index must lie in 0 .. 1; got {index}"):
        Cohort(models.MLP(), members(seed=range(2))).model(index)


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


def test_numbers_of_numpy_are_numbers() -> None:
    assert members(seed=np.arange(2), lr=np.float64(0.1)) == members(seed=range(2), lr=0.1)


def test_a_template_with_dropout_of_its_own_is_refused() -> None:
    template = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 10))
    with pytest.raises(ValueError, match="template: Sequential throws dice of its own; give dropout to the members"):
        Cohort(template, members(seed=range(2)))
