"""Weights of training samples learned by their slope, and what they are compared with."""

from __future__ import annotations

import dataclasses
from itertools import islice
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from kit import models, training
from kit.data import Dataset, Split
from kit.search.gradient import (
    Implicit,
    Problem,
    Unrolled,
    auc,
    clean,
    flip,
    halves,
    network,
    sample_losses,
    trained,
)
from kit.search.space import Float


def part(digits: Dataset) -> Dataset:
    return dataclasses.replace(digits, train=digits.train.first(200), validation=digits.validation.first(120))


def problem_of(dataset: Dataset, **settings: Any) -> Problem:
    return network(models.MLP((64, 10)), dataset, ["sample_weight"], **{"steps": 20, "lr": 0.5, **settings})


@pytest.mark.parametrize("to", ["any", "next"])
def test_so_many_labels_are_wrong_and_nothing_else_changes(digits: Dataset, to: Any) -> None:
    before, states = digits.train.labels.clone(), torch.get_rng_state()
    noisy, flipped = flip(digits, 0.2, 3, to=to)
    assert int(flipped.sum()) == round(0.2 * len(before))
    assert torch.equal(noisy.train.labels != before, flipped)
    assert torch.equal(digits.train.labels, before) and torch.equal(states, torch.get_rng_state())
    assert noisy.train.inputs is digits.train.inputs and noisy.validation is digits.validation
    assert torch.equal(flip(digits, 0.2, 3, to=to)[1], flipped) and not torch.equal(
        flip(digits, 0.2, 4, to=to)[1], flipped
    )
    assert not flip(digits, 0.0)[1].any() and flip(digits, 1.0)[1].all()


def test_wrong_labels_are_of_any_class_or_agree(digits: Dataset) -> None:
    y = digits.train.labels
    noisy, flipped = flip(digits, 1.0)
    moves = (noisy.train.labels - y).remainder(10).bincount(minlength=10)
    assert moves[0] == 0 and moves[1:].min() > len(y) / 9 * 0.6
    noisy, flipped = flip(digits, 0.2, to="next")
    assert torch.equal(noisy.train.labels[flipped], (y[flipped] + 1) % 10)
    shares = np.array([float(flipped[y == label].float().mean()) for label in range(10)])
    touched = shares[shares > 0]
    assert len(touched) == 4 and (np.sort(touched)[1:].round(1) == 0.6).all()  # 0.2 of ten classes: three and a bit
    flip(digits, 0.6, to="next")


def test_flips_are_no_part_of_the_order_that_the_same_seed_gives_batches(digits: Dataset) -> None:
    noisy, flipped = flip(digits, 0.2, 1)
    seen: list[torch.Tensor] = []
    model = models.MLP((64, 10))
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    problem = network(model, noisy, ["lr"], steps=4, batch_size=100, seed=1)
    seen.clear()
    problem.path(problem.hyper)
    wrong = digits.train.inputs[flipped].flatten(1)
    shares = [float((batch.flatten(1)[:, None] == wrong).all(2).any(1).float().mean()) for batch in seen]
    assert len(shares) == 4 and max(shares) < 0.4  # of 100 samples 20 +- 4


def test_the_halves_are_all_of_validation(digits: Dataset) -> None:
    dataset, held_out = halves(digits, 1)
    both = torch.cat([dataset.validation.inputs, held_out.inputs]).flatten(1)
    assert len(both) == len(digits.validation) and abs(len(held_out) - len(dataset.validation)) <= 1
    assert torch.equal(
        both.sort(0).values, digits.validation.inputs.flatten(1).sort(0).values
    )  # each pixel's values are all there
    assert dataset.train is digits.train and not torch.equal(held_out.inputs, halves(digits, 2)[1].inputs)


def test_a_step_is_the_slope_by_hand(digits: Dataset) -> None:
    """Two steps of plain gradient descent on softmax regression, differentiated by autograd through both."""
    dataset = part(digits)
    problem = problem_of(dataset, steps=2, momentum=0.0, weight_decay=0.0)
    first, second = islice(clean(problem, Unrolled(), rate=0.05), 2)
    weights = torch.ones(200, requires_grad=True)
    w, b = (problem.start[name].clone().requires_grad_() for name in ("layers.0.weight", "layers.0.bias"))
    for _ in range(2):
        logits = dataset.train.inputs.flatten(1) @ w.T + b
        loss = (weights * F.cross_entropy(logits, dataset.train.labels, reduction="none")).mean()
        slopes = torch.autograd.grad(loss, [w, b], create_graph=True)
        w, b = w - 0.5 * slopes[0], b - 0.5 * slopes[1]
    score = F.cross_entropy(dataset.validation.inputs.flatten(1) @ w.T + b, dataset.validation.labels)
    (slope,) = torch.autograd.grad(score, weights)
    assert first.loss == pytest.approx(score.item(), rel=1e-5)
    torch.testing.assert_close(first.slope, slope, rtol=1e-4, atol=1e-9)
    assert torch.equal(first.weights, torch.ones(200)) and first.spent == 2 + 2 * 2 and second.spent == 2 * first.spent
    expected = (1 - 0.05 * slope / slope.square().mean().sqrt()).clamp(0, 1)
    torch.testing.assert_close(second.weights, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("way", [Unrolled(10), Implicit(5, "neumann")])
def test_wrong_labels_lose_weight_and_the_validation_loss_falls(digits: Dataset, way: Any) -> None:
    noisy, flipped = flip(digits, 0.2, 1)
    problem = problem_of(halves(noisy)[0])
    first, *others = islice(clean(problem, way), 7)
    last = others[-1]
    assert auc(-last.weights, flipped).value > 0.9 and last.loss < first.loss
    assert float(last.weights[~flipped].mean()) > float(last.weights[flipped].mean()) + 0.3
    assert float(last.weights.min()) >= 0 and float(last.weights.max()) <= 1
    order = last.suspects
    assert torch.equal(order.sort().values, torch.arange(len(flipped)))
    assert (last.weights[order].diff() >= 0).all()
    ties = last.weights[order] == 0
    assert ties.sum() > 2 and (last.total[order][ties].diff() >= 0).all()
    torch.testing.assert_close(last.total, torch.stack([each.weights for each in (first, *others)]).sum(0))


def test_a_state_becomes_a_network(digits: Dataset) -> None:
    dataset = part(digits)
    model = models.MLP((64, 10))
    before = {name: each.clone() for name, each in model.state_dict().items()}
    problem = network(model, dataset, ["sample_weight"], steps=5)
    found = next(clean(problem, Unrolled(1)))
    made = trained(model, found.state)
    assert training.evaluate(made, dataset.validation).loss == pytest.approx(found.loss, rel=1e-5)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    losses = sample_losses(made, dataset.train)
    assert losses.shape == (200,)
    assert float(losses.mean()) == pytest.approx(training.evaluate(made, dataset.train).loss, rel=1e-5)


def test_the_area_is_scikit_learns_and_its_interval_covers() -> None:
    rng = np.random.default_rng(0)
    flipped = torch.from_numpy(rng.random(300) < 0.2)
    suspicion = torch.from_numpy(rng.normal(size=300).round(1)) + flipped  # with ties
    found = auc(suspicion, flipped)
    assert found.value == pytest.approx(roc_auc_score(flipped, suspicion))
    drawn = []
    for _ in range(200):  # the bootstrap, both kinds apart
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(flipped == kind), int((flipped == kind).sum())) for kind in (0, 1)]
        )
        drawn.append(roc_auc_score(flipped[rows], suspicion[rows]))
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(np.std(drawn), rel=0.15)
    perfect = auc(flipped.double(), flipped)
    assert (perfect.value, perfect.low, perfect.high) == (1, 1, 1)


def test_what_cannot_be_is_refused(digits: Dataset) -> None:
    same = Split(digits.train.inputs, digits.train.labels * 0)
    one = Dataset("one", same, same, same, ("a",))
    for call, kind, sentence in (
        (lambda: flip(digits, 1.5), ValueError, r"share must lie in \[0, 1\]; got 1.5"),
        (lambda: flip(digits, 0.7, to="next"), ValueError, "share must be 0.6 or less with to='next'; got 0.7"),
        (lambda: flip(digits, 0.2, to="all"), ValueError, "to must be one of any, next; got 'all'"),  # type: ignore[arg-type]
        (lambda: flip(digits, 0.2, -1), ValueError, "seed must be 0 or more"),
        (lambda: flip("digits", 0.2), TypeError, "dataset must be a Dataset"),  # type: ignore[arg-type]
        (lambda: flip(one, 0.2), ValueError, "dataset must have two classes or more; one has 1"),
        (
            lambda: halves(dataclasses.replace(digits, validation=digits.validation.first(1))),
            ValueError,
            "dataset must have two validation samples or more, to halve; got 1",
        ),
        (lambda: clean("p", Unrolled()), TypeError, "problem must be a Problem"),  # type: ignore[arg-type]
        (
            lambda: clean(network(models.MLP((64, 10)), digits), Unrolled()),
            ValueError,
            "problem must tune sample_weight alone; it tunes weight_decay",
        ),
        (
            lambda: clean(problem_of(digits, space={"sample_weight": Float(0.1, 1, log=True)}), Unrolled()),
            ValueError,
            "sample_weight must be no logarithm",
        ),
        (lambda: clean(problem_of(digits), Unrolled(), rate=0), ValueError, "rate must be above 0; got 0"),
        (
            lambda: auc(torch.arange(5.0), torch.arange(5) == 2),
            ValueError,
            "flipped must mark two samples or more, and leave two; got 1 of 5",
        ),
    ):
        with pytest.raises(kind, match=sentence):
            call()


def test_it_stops_when_told_and_takes_flat_slopes(digits: Dataset) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(training.Cancelled):
        next(clean(problem_of(part(digits)), Unrolled(2), cancel=stop))
    still = Problem(
        lambda w, h, at: (w["w"] ** 2).sum() + 0 * h["sample_weight"].sum() * w["w"].sum(),
        lambda w, h: (w["w"] ** 2).sum(),
        {"w": torch.ones(2)},
        {"sample_weight": Float(0, 1)},
        {"sample_weight": torch.ones(3)},
        steps=2,
    )
    _, second = islice(clean(still, Unrolled()), 2)
    assert torch.equal(second.weights, torch.ones(3))
