"""Each exercise: the notebook's solution passes, plausible wrong answers fail for their reason, a stub is no error."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune as torch_prune
from scipy.stats import norm
from torch import nn

from kit import exercises
from kit.exercises import Verdict

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SOLUTION = re.compile(r"```python\n# exercise: (\w+)\n(.*?)```", re.DOTALL)


def solutions() -> dict[str, str]:
    """Code of each folded solution, by the name of its check."""
    found: dict[str, str] = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                found |= dict(SOLUTION.findall(cell.source))
    return found


# What the notebook passes to each check where it is not one answer under the name of the check.
OTHERS = {
    "sparse_break_even": ["break_even"],
    "ratio_for_a_tenth": ["ratio"],
    "repaired_listing": ["Net", "prune_half"],
    "missing_factor": ["repaired_loss"],
    "wrong_reduction": ["soft_loss"],
    "temperature_for": ["temperature"],
}
CHECKS = sorted(name for name, value in vars(exercises).items() if callable(value) and name != "Verdict")


def test_every_exercise_has_a_solution_here() -> None:
    assert sorted(solutions()) == CHECKS


@pytest.mark.parametrize("name", CHECKS)
def test_the_notebooks_solution_passes(name: str) -> None:
    names: dict[str, Any] = {"torch": torch, "torch_prune": torch_prune, "F": F, "norm": norm}
    exec(solutions()[name], names)
    verdict = getattr(exercises, name)(*(names[answer] for answer in OTHERS.get(name, [name])))
    assert verdict.right, verdict


@pytest.mark.parametrize("name", [name for name in CHECKS if name != "repaired_listing"])
@pytest.mark.parametrize("stub", [None, ...])
def test_an_untouched_stub_is_no_error(name: str, stub: Any) -> None:
    check: Callable[[Any], Verdict] = getattr(exercises, name)
    takes_a_number = name in ("sparse_break_even", "ratio_for_a_tenth", "temperature_for")
    verdict = check(stub if takes_a_number else lambda *_: stub)
    assert not verdict.right
    assert "three dots" in verdict.message
    assert repr(verdict).startswith("Not yet.")


def running_maximum(pairs: Any) -> list[tuple[float, float]]:
    """Right only for pairs that come sorted by size."""
    front: list[tuple[float, float]] = []
    for pair in pairs:
        if not front or pair[1] > front[-1][1]:
            front = [kept for kept in front if kept[0] < pair[0]] + [pair]
    return front


def places(values: torch.Tensor) -> torch.Tensor:
    return values.flatten().argsort().argsort().view_as(values)


def kept(w: torch.Tensor, ratio: float) -> torch.Tensor:
    """The right mask."""
    return places(w.abs()) >= round(ratio * w.numel())


Activation = Callable[[torch.Tensor], torch.Tensor]


def same(x: torch.Tensor) -> torch.Tensor:
    return x


class Chapter(nn.Module):
    """The chapter's network with the width of fc1 mended, and an activation after each layer where wanted."""

    def __init__(self, *, width: int = 64 * 8 * 8, after: tuple[Activation, ...] = (torch.relu,) * 3 + (same,)) -> None:
        super().__init__()
        self.after = after
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, stride=1, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, stride=1, padding=1)
        self.fc1 = nn.Linear(width, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.after[1](self.conv2(self.after[0](self.conv1(x))))
        return self.after[3](self.fc2(self.after[2](self.fc1(x.flatten(1)))))


def layers(net: nn.Module) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


def half(method: Any) -> Callable[[nn.Module], None]:
    """Prunes half of all weights, all layers together."""

    def prune_half(net: nn.Module) -> None:
        pairs = [(layer, "weight") for layer in layers(net)]
        torch_prune.global_unstructured(pairs, pruning_method=method, amount=0.5)

    return prune_half


half_globally = half(torch_prune.L1Unstructured)


def half_by_layer(net: nn.Module) -> None:
    for layer in layers(net):
        torch_prune.l1_unstructured(layer, "weight", amount=0.5)


@pytest.mark.parametrize(
    ("net", "prune_half", "reason"),
    [
        (lambda: Chapter(width=64 * 6 * 6), half_globally, "cannot take an 8x8 image.*2304"),
        (lambda: Chapter(after=(same,) * 4), half_globally, "between conv1 and conv2"),
        (lambda: Chapter(after=(same, torch.relu, same, same)), half_globally, "between conv1 and conv2"),
        (lambda: Chapter(after=(same, same, same, torch.relu)), half_globally, "between conv1 and conv2"),
        (
            Chapter,
            lambda net: torch_prune.global_unstructured(net, pruning_method="l1", amount=0.5),  # as printed
            "list of pairs",
        ),
        (Chapter, half_by_layer, "ranked? together|all layers together"),
        (Chapter, half(torch_prune.RandomUnstructured), "all layers together"),
        (Chapter, half("l1"), "as a class"),
        (Chapter, lambda net: torch_prune.l1_unstructured(net.fc2, "weight", amount=0.5), "Half of all weights"),
        (Chapter, half_globally, None),
    ],
)
def test_repairs(net: Any, prune_half: Callable[[Any], None], reason: str | None) -> None:
    verdict = exercises.repaired_listing(net, prune_half)
    assert verdict.right is (reason is None)
    assert re.search(reason or "", verdict.message), verdict.message


def soft(z: torch.Tensor, v: torch.Tensor, t: float, reduction: str = "batchmean") -> torch.Tensor:
    return F.kl_div(F.log_softmax(z / t, 1), F.softmax(v / t, 1), reduction=reduction)


def distance(z: torch.Tensor, v: torch.Tensor, t: float) -> torch.Tensor:
    return torch.softmax(z / t, 1) - torch.softmax(v / t, 1)


def by_accuracy(accuracies: Any, *, best_first: bool) -> list[int]:
    return sorted(range(len(accuracies)), key=lambda at: accuracies[at], reverse=best_first)


def from_scratch(n: int, least: int, most: int, eta: int) -> int:
    total, epochs = 0, least
    while epochs <= most and n:
        total, n, epochs = total + n * epochs, n // eta, epochs * eta
    return total


def minimising(mean: float, std: float, best: float) -> float:
    z = (best - mean) / std
    return float(std * (norm.pdf(z) + z * norm.cdf(z)))


# What a reader may well write, and what the check must then say.
WRONG: dict[str, list[tuple[Any, str]]] = {
    "images_needed": [
        (lambda p, h: p * (1 - p) * (1.96 / (2 * h)) ** 2, "half width for the whole"),
        (lambda p, h: (p * (1 - p)) ** 0.5 * 1.96 / h, "square is missing"),
        (lambda p, h: p * (1 - p) / h**2, r"1\.96 is missing"),
        (lambda p, h: 1000, "about .* images are needed"),
        (lambda p, h: 1 / 0, "ZeroDivisionError"),
    ],
    "pareto_front": [
        (lambda pairs: pairs, "beaten by another"),
        (lambda pairs: running_maximum(pairs), "beaten by"),
        (lambda pairs: [pair for pair in pairs for _ in range(2)], "twice"),
        (lambda pairs: [max(pairs, key=lambda pair: pair[1])], "beaten by none"),
        (lambda pairs: [b for b in pairs if not any(a[0] < b[0] and a[1] > b[1] for a in pairs)], "beaten by another"),
        (lambda pairs: [b for b in pairs if not any(a[0] <= b[0] and a[1] >= b[1] for a in pairs)], "beaten by none"),
    ],
    "smallest_mask": [
        (lambda w, r: places(w) >= round(r * w.numel()), "absolute values"),
        (lambda w, r: ~kept(w, r), "swapped|must go"),
        (lambda w, r: w * kept(w, r), "torch.bool"),
        (lambda w, r: places(w.abs()) >= int(r * w.numel()), "must go"),
        (lambda w, r: w.abs() > w.abs().flatten().kthvalue(round(r * w.numel())).values, "ratio 0 nothing|must go"),
        (lambda w, r: w.abs() > r, "must go"),
        (lambda w, r: w.abs() > w.abs().mean(), "must go"),
        (lambda w, r: torch.arange(w.numel()).view_as(w) >= round(r * w.numel()), "smaller weights stayed"),
        (lambda w, r: kept(w, r).flatten(), "shape"),
    ],
    "sparse_break_even": [
        *((0.8, "stay"), (0.5, "one"), (0.25, "equate"), ("many", "ValueError"), (20, "between 0 and 1")),
    ],
    "ratio_for_a_tenth": [
        *((0.9, "hundredth"), (0.316, "stays"), (0.95, "multiply"), (0.5, "shrink"), (68, "between 0 and 1")),
    ],
    "missing_factor": [
        (lambda z, v, y, t, a: (1 - a) * F.cross_entropy(z, y) + a * soft(z, v, t), "right: what is missing"),
        (lambda z, v, y, t, a: (1 - a) * F.cross_entropy(z, y) + a * t * soft(z, v, t), "the factor is T"),
        (lambda z, v, y, t, a: (1 - a) * F.cross_entropy(z, y) + a / t**2 * soft(z, v, t), "you divide"),
        (lambda z, v, y, t, a: t**2 * ((1 - a) * F.cross_entropy(z, y) + a * soft(z, v, t)), "on the hard labels too"),
        (lambda z, v, y, t, a: a * F.cross_entropy(z, y) + (1 - a) * t**2 * soft(z, v, t), "weights are swapped"),
        (lambda z, v, y, t, a: F.cross_entropy(z, y) + a * t**2 * soft(z, v, t), "the loss must be"),
    ],
    "wrong_reduction": [
        (lambda z, v, t: t**2 * soft(z, v, t, "mean"), "5 times too small, for 6 images and 5 classes"),
        (lambda z, v, t: t**2 * soft(z, v, t, "sum"), "that is the sum"),
        (lambda z, v, t: t**2 * soft(v, z, t), "swapped"),
        (lambda z, v, t: t**2 * F.kl_div(F.softmax(z / t, 1), F.softmax(v / t, 1), reduction="batchmean"), "logarithm"),
        (lambda z, v, t: soft(z, v, t), "the loss must be"),
    ],
    "soft_gradient": [
        (lambda z, v, t: -t * distance(z, v, t) / len(z), "sign is wrong"),
        (lambda z, v, t: t * distance(z, v, t), "6 times too large"),
        (lambda z, v, t: distance(z, v, t) / len(z), "a factor T is missing"),
        (lambda z, v, t: t**2 * distance(z, v, t) / len(z), "a factor T too many"),
        (lambda z, v, t: t * distance(z, v, 1) / len(z), "both taken at temperature T"),
        (lambda z, v, t: t * distance(z, v, t).mean(0), "shape of the logits"),
        (lambda z, v, t: 1.0, "shape of the logits"),
    ],
    "temperature_for": [
        *((math.log(4) / 4, "1 / T"), (4 / math.log(5), "ratio of the two shares"), (4 / math.log10(4), "base 10")),
        *((1.0, r"gets 1\.8 %"), (-2.0, "above 0"), (1e-9, r"gets 0\.0 %")),
    ],
    "trials_needed": [
        (lambda share, p: math.log(1 - p) / math.log(1 - share), "round up"),
        (lambda share, p: math.floor(math.log(1 - p) / math.log(1 - share)), "round down"),
        (lambda share, p: math.ceil(p / share), "do not add up"),
        (lambda share, p: math.ceil(math.log(p) / math.log(1 - share)), "all miss with"),
        (lambda share, p: 10, "it takes"),
    ],
    "promoted": [
        (lambda a, eta: by_accuracy(a, best_first=False)[: len(a) // eta], "you take the worst"),
        (lambda a, eta: by_accuracy(a, best_first=True)[:eta], "rounded down"),
        (lambda a, eta: by_accuracy(a, best_first=True)[: -(-len(a) // eta)], "rounded down"),
        (lambda a, eta: sorted(a, reverse=True)[: len(a) // eta], "numbers of the trials"),
        (lambda a, eta: list(range(len(a) // eta)), "is the best|you take the worst"),
    ],
    "halving_cost": [
        (from_scratch, "only the new epochs"),
        (lambda n, least, most, eta: n * most, "train all of them in full"),
        (lambda n, least, most, eta: n * least, "first rung only"),
        (lambda n, least, most, eta: n + most, "it is .* epochs"),
    ],
    "chance_to_hit": [
        (lambda k, d, w: (1 - (1 - w) ** (k**d), 1 - (1 - w) ** (k**d)), "different values only"),
        (lambda k, d, w: (k * w, 1 - (1 - w) ** k), r"k\^d"),
        (lambda k, d, w: (k * w, k**d * w), "do not add up"),
        (lambda k, d, w: (k * w, k * w), "do not share values"),
        (lambda k, d, w: (1 - (1 - w) ** k, 1 - (1 - w) ** (k**d)), "shifted as a whole"),
        (lambda k, d, w: (k**d * w, 1 - (1 - w) ** (k**d)), "k w ="),
        (lambda k, d, w: 1 - (1 - w) ** (k**d), "two probabilities"),
    ],
    "one_point_posterior": [
        (lambda y, k, s2: (k * y, 1 - k**2 / (1 + s2)), "noise is missing"),
        (lambda y, k, s2: (k * y / (1 + s2), 1 - k / (1 + s2)), "comes twice"),
        (lambda y, k, s2: (k * y / (1 + s2), 1 - k**2), "missing from the variance"),
        (lambda y, k, s2: (k * y / (1 + s2), 1 + s2 - k**2 / (1 + s2)), "new reading"),
        (lambda y, k, s2: (k * y / (1 + s2), (1 - k**2 / (1 + s2)) ** 0.5), "standard deviation"),
        (lambda y, k, s2: (y, 1 - k**2), "the mean is"),
        (lambda y, k, s2: k * y / (1 + s2), "two numbers"),
    ],
    "improvement": [
        (minimising, "for minimising"),
        (lambda mean, std, best: -minimising(-mean, std, -best), "never below 0"),
        (lambda mean, std, best: minimising(-mean, std, -best) / std, "factor sigma"),
        (lambda mean, std, best: norm.cdf((mean - best) / std), "probability of an improvement"),
        (lambda mean, std, best: max(mean - best, 0.0), "forgets the uncertainty"),
        (lambda mean, std, best: 1.0, "it is .*; got 1"),
    ],
    "next_place": [
        (lambda m, s, beta: max(range(len(m)), key=lambda at: m[at] - beta * s[at]), "take uncertainty off"),
        (lambda m, s, beta: min(range(len(m)), key=lambda at: m[at] - beta * s[at]), "lowest of all cautious|alone"),
        (lambda m, s, beta: max(range(len(m)), key=lambda at: m[at]), "mean alone"),
        (lambda m, s, beta: max(range(len(m)), key=lambda at: s[at]), "uncertainty alone|lowest of all"),
        (lambda m, s, beta: max(range(len(m)), key=lambda at: m[at] + beta**2 * s[at]), "mean alone|it is place"),
        (lambda m, s, beta: max(range(len(m)), key=lambda at: m[at] + beta**0.5 * s[at]), "it is place"),
        (lambda m, s, beta: 0, "it is place"),
    ],
}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize(
    ("name", "wrong", "reason"), [(name, *pair) for name, pairs in WRONG.items() for pair in pairs]
)
def test_a_wrong_answer_is_told_why(name: str, wrong: Any, reason: str) -> None:
    verdict = getattr(exercises, name)(wrong)
    assert not verdict.right
    assert re.search(reason, verdict.message), verdict.message
