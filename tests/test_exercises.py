"""Each exercise: the notebook's solution passes, plausible wrong answers fail for their reason, a stub is no error."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune as torch_prune
from scipy.stats import norm
from torch import nn

from kit import compress, data, distill, exercises, models, training
from kit.cells import EDGES
from kit.exercises import Verdict
from kit.exercises.bayes import _loop as loop
from kit.search import architecture
from kit.search import gradient as slopes
from tests.landscapes import hill
from tests.toy_students import Formula

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
    "wrong_soft_loss": ["soft_loss"],
    "temperature_for": ["temperature"],
    "better_student": ["better_student", "students"],
    "shorter_blocks": ["code"],
}
# What a check takes beside the answer.
BESIDE: dict[str, list[Any]] = {"beat_hyperband": [hill()], "best_within": [range(8), Formula]}
CHECKS = sorted(name for name, value in vars(exercises).items() if callable(value) and name != "Verdict")


def test_every_exercise_has_a_solution_here() -> None:
    assert sorted(solutions()) == CHECKS


@pytest.mark.parametrize("name", CHECKS)
def test_the_notebooks_solution_passes(name: str, request: pytest.FixtureRequest) -> None:
    names: dict[str, Any] = {"torch": torch, "torch_prune": torch_prune, "F": F, "norm": norm, "np": np, "math": math}
    names |= {
        "compress": compress,
        "distill": distill,
        "gradient": slopes,
        "EDGES": EDGES,
        "table": architecture.load(),
    }
    if name == "better_student":
        names["students"] = request.getfixturevalue("students")
    exec(solutions()[name], names)
    answers = (names[answer] for answer in OTHERS.get(name, [name]))
    verdict = getattr(exercises, name)(*answers, *BESIDE.get(name, []))
    assert verdict.right, verdict


def test_asha_turn_takes_a_list_for_a_pair() -> None:
    def listed(rungs: Any, eta: int) -> Any:
        turn = promotable(rungs, eta)
        return turn if turn == "new" else list(turn)

    assert exercises.asha_turn(listed).right


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in ("repaired_listing", "better_student")])
@pytest.mark.parametrize("stub", [None, ...])
def test_an_untouched_stub_is_no_error(name: str, stub: Any) -> None:
    check: Callable[[Any], Verdict] = getattr(exercises, name)
    takes_a_value = name in (
        "sparse_break_even",
        "ratio_for_a_tenth",
        "temperature_for",
        "own_ratios",
        "shorter_blocks",
        "which_slopes",
    )
    verdict = check(stub if takes_a_value else lambda *_: stub, *BESIDE.get(name, []))
    assert not verdict.right
    assert "three dots" in verdict.message
    assert repr(verdict).startswith("Not yet.")


@pytest.fixture(scope="module")
def students() -> distill.Students:
    digits, teacher = data.digits(), models.ConvNet(seed=0)
    training.fit(teacher, digits, epochs=8, seed=0)
    return distill.Students(teacher, digits)


def nearly(split: data.Split) -> data.Split:
    """The same images, but for a change that nobody sees."""
    return data.Split(split.inputs + 1e-6, split.labels)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda hundred: ..., "three dots"),
        (lambda hundred: hundred, "Return a distill.Recipe; got Split"),
        (lambda hundred: distill.Recipe(hundred, epochs=40), "see 35,920 samples, .* the kit's see 17,960"),
        (lambda hundred: distill.Recipe(distill.shifted(hundred)), "no more"),
        (lambda hundred: distill.Recipe(hundred, width=64), "have 64 hidden units; the kit's have 32"),
        (lambda hundred: distill.Recipe(data.digits().train), "not made of the hundred"),
        (lambda hundred: distill.Recipe(nearly(data.digits().train)), "not made of the hundred"),
        (lambda hundred: distill.Recipe(nearly(data.digits().validation)), "not made of the hundred"),
        (lambda hundred: distill.Recipe(data.digits().test), "not made of the hundred"),
        (
            lambda hundred: distill.Recipe(hundred),
            r"4 students each.* \+0\.0 points \(\+0\.0 to \+0\.0\)\. The kit is beaten where",
        ),
        (lambda hundred: distill.Recipe(hundred).hard, r"-\d\.\d points .* both intervals are above 0"),
        (lambda hundred: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_does_not_beat_the_kit(students: distill.Students, wrong: Any, reason: str) -> None:
    verdict = exercises.better_student(wrong, students, seeds=range(4))
    assert not verdict.right
    assert re.search(reason, verdict.message), verdict.message


def test_a_tenth_of_a_point_takes_as_many_images_as_the_solution_says() -> None:
    names: dict[str, Any] = {}
    exec(solutions()["images_needed"], names)
    assert round(names["images_needed"](0.974, 0.0005), -4) == 390_000


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (exercises.translated_alpha, lambda alpha, t: 1 / (1 + (1 / alpha - 1) * t**2)),  # not at alpha = 0
        (exercises.reverse_gradient, lambda z, v, t: reverse(z.double(), v.double(), t)),
        (exercises.wrong_soft_loss, lambda z, v, t: t**2 * soft(z, v, t)),
    ],
)
def test_a_right_answer_of_another_form_passes(check: Callable[[Any], Verdict], right: Any) -> None:
    verdict = check(right)
    assert verdict.right, verdict


def running_maximum(pairs: Any) -> list[tuple[float, float]]:
    """Right only for pairs that come sorted by size."""
    front: list[tuple[float, float]] = []
    for pair in pairs:
        if not front or pair[1] > front[-1][1]:
            front = [kept for kept in front if kept[0] < pair[0]] + [pair]
    return front


def upper_hull(pairs: Any) -> list[tuple[float, float]]:
    """The front without its pairs below a straight line between two others."""

    def under(a: Any, b: Any, c: Any) -> bool:
        return a[0] < b[0] < c[0] and (b[1] - a[1]) * (c[0] - a[0]) < (c[1] - a[1]) * (b[0] - a[0])

    front = [b for b in pairs if not any(a[0] <= b[0] and a[1] >= b[1] and a != b for a in pairs)]
    return [b for b in front if not any(under(a, b, c) for a in front for c in front)]


def places(values: torch.Tensor) -> torch.Tensor:
    return values.flatten().argsort().argsort().view_as(values)


def kept(w: torch.Tensor, ratio: float) -> torch.Tensor:
    """The right mask."""
    return places(w.abs()) >= round(ratio * w.numel())


def gradient(net: Any, w: torch.Tensor, x: torch.Tensor, y: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    return torch.autograd.grad(F.cross_entropy(net(x), y, reduction=reduction), w)[0]


def accumulating(net: Any, w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Right until a gradient is there already."""
    F.cross_entropy(net(x), y).backward()
    assert w.grad is not None
    return (w * w.grad).abs()


def moving(net: Any, w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """As by a step of the optimiser."""
    score = (w * gradient(net, w, x, y)).abs().detach()
    w.data -= 0.1 * score
    return score


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


def half(method: Any, *names: str) -> Callable[[nn.Module], None]:
    """Prunes half of all weights, or of what is named, all layers together."""

    def prune_half(net: nn.Module) -> None:
        pairs = [(layer, name) for layer in layers(net) for name in names or ("weight",)]
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
        (lambda: Chapter(after=(torch.relu, torch.relu, lambda x: 2 * x, same)), half_globally, "between fc1 and fc2"),
        (
            lambda: Chapter(width=64 * 4 * 4, after=(torch.relu, lambda x: F.avg_pool2d(x, 2), torch.relu, same)),
            half_globally,
            "between conv2 and fc1",
        ),
        (
            Chapter,
            lambda net: torch_prune.global_unstructured(net, pruning_method="l1", amount=0.5),  # as printed
            "list of pairs",
        ),
        (Chapter, half_by_layer, "ranked? together|all layers together"),
        (Chapter, half(torch_prune.RandomUnstructured), "all layers together"),
        (Chapter, half("l1"), "as a class"),
        (Chapter, lambda net: torch_prune.l1_unstructured(net.fc2, "weight", amount=0.5), "Half of all weights"),
        (Chapter, half(torch_prune.L1Unstructured, "weight", "bias"), r"The bias of \w+ has changed"),
        (Chapter, half_globally, None),
        (lambda: Chapter(after=(torch.tanh, torch.sigmoid, F.gelu, same)), half_globally, None),
        (
            lambda: Chapter(width=64 * 4 * 4, after=(torch.relu, lambda x: F.max_pool2d(x, 2), torch.relu, same)),
            half_globally,
            None,
        ),
    ],
)
def test_repairs(net: Any, prune_half: Callable[[Any], None], reason: str | None) -> None:
    verdict = exercises.repaired_listing(net, prune_half)
    assert verdict.right is (reason is None)
    assert re.search(reason or "", verdict.message), verdict.message


def test_right_answers_in_numpy_are_right() -> None:
    assert exercises.smallest_mask(lambda w, r: kept(w, r).numpy()).right
    scores = exercises.taylor_scores(lambda net, w, x, y: (w * gradient(net, w, x, y)).abs().detach().numpy())
    assert scores.right


def soft(z: torch.Tensor, v: torch.Tensor, t: float, reduction: str = "batchmean") -> torch.Tensor:
    return F.kl_div(F.log_softmax(z / t, 1), F.softmax(v / t, 1), reduction=reduction)


def weighed(z: torch.Tensor, v: torch.Tensor, t: float) -> torch.Tensor:
    """p ln(p / q), of each class."""
    return torch.softmax(z / t, 1) * (torch.log_softmax(z / t, 1) - torch.log_softmax(v / t, 1))


def reverse(z: torch.Tensor, v: torch.Tensor, t: float) -> torch.Tensor:
    """The gradient of T^2 KL(p || q), the mean over samples."""
    terms = weighed(z, v, t)
    return t * (terms - torch.softmax(z / t, 1) * terms.sum(1, keepdim=True)) / len(z)


def promotable(rungs: Any, eta: int, *, order: Any = reversed, among: str = "all", up: bool = False) -> Any:
    """ASHA's next trial; the rest are plausible slips."""
    for rung in order(range(len(rungs) - (among != "with the last"))):
        trials = [at for at, (_, gone) in enumerate(rungs[rung]) if not (gone and among == "waiting")]
        ranked = sorted(trials, key=lambda at: -rungs[rung][at][0])
        for at in ranked[: -(-len(ranked) // eta) if up else len(ranked) // eta]:
            if among == "gone, too" or not rungs[rung][at][1]:
                return rung, at
    return "new"


def one_of_the_best(rungs: Any, eta: int, *, key: Any, everywhere: bool = False) -> Any:
    """The trial of largest key among those that may go on: of the highest rung that has some, or of all rungs."""
    found: list[tuple[float, int, int]] = []
    for rung in reversed(range(len(rungs) - 1)):
        ranked = sorted(((value, rung, at, gone) for at, (value, gone) in enumerate(rungs[rung])), reverse=True)
        found += [(value, rung, at) for value, rung, at, gone in ranked[: len(ranked) // eta] if not gone]
        if found and not everywhere:
            break
    return max(found, key=key)[1:] if found else "new"


def by_count(rungs: Any, eta: int) -> Any:
    """While fewer than 1 in eta of a rung have gone on, the best that has not."""
    for rung in reversed(range(len(rungs) - 1)):
        waiting = [(value, at) for at, (value, gone) in enumerate(rungs[rung]) if not gone]
        if len(rungs[rung]) - len(waiting) < len(rungs[rung]) // eta:
            return rung, max(waiting)[1]
    return "new"


def bracket_cost(n: int, rungs: list[int], eta: int) -> int:
    return sum(n // eta**at * (epochs - [0, *rungs][at]) for at, epochs in enumerate(rungs))


def from_below(n: int, least: int, most: int, eta: int) -> int:
    return bracket_cost(n, [least * eta**at for at in range(9) if least * eta**at <= most], eta)


def from_scratch(n: int, least: int, most: int, eta: int) -> int:
    rungs = [most]
    while rungs[0] // eta >= least:
        rungs.insert(0, rungs[0] // eta)
    return sum(n // eta**at * epochs for at, epochs in enumerate(rungs))


def down_from_the_top(n: int, least: int, most: int, eta: int, *, whole: Callable[[float], int] = int) -> int:
    """The right cost, unless shares are made whole in another way."""
    rungs, total = [most], 0
    while rungs[0] // eta >= least:
        rungs.insert(0, rungs[0] // eta)
    for before, epochs in itertools.pairwise([0, *rungs]):
        total += n * (epochs - before)
        n = whole(n / eta)
    return total


def without_dropout(train: Any, space: Any, seed: int) -> Any:
    """Twenty learning rates at the place where dropout was best, had it not been moved."""
    configs = [space.decode([at / 19, 0.0]) for at in range(20)]
    for onward, epochs in ((8, 1), (3, 3), (2, 6), (1, 20)):
        configs = sorted(configs, key=lambda config: -train(config, epochs))[:onward]
    return configs[0]


def at_random(train: Any, space: Any, seed: int, *, trials: int = 4) -> Any:
    """The best of some whole trainings."""
    configs = [
        space.decode(torch.rand(2, generator=torch.manual_seed(100 * seed + at)).numpy()) for at in range(trials)
    ]
    return max(configs, key=lambda config: train(config, 20))


def of_means(
    plain: np.ndarray,
    across: np.ndarray,
    y: np.ndarray,
    counts: np.ndarray,
    s2: float,
    *,
    noise: Callable[..., Any] = lambda s2, counts: s2 / counts,
) -> tuple[np.ndarray, np.ndarray]:
    """Right unless the noise is another."""
    solved = np.linalg.inv(plain + np.diag(noise(s2, counts))) @ across
    return y @ solved, 1 - (across * solved).sum(0)


def looped(
    objective: Any,
    tried: list[int],
    trials: int,
    believe: Any,
    *,
    over: str = "mean",
    minimise: bool = False,
    again: bool = False,
    score: Callable[..., Any] = lambda gained, mean, std: gained,
) -> list[int]:
    """Right unless something else is asked for."""
    readings = [objective(cell) for cell in tried]
    while len(tried) < trials:
        mean, std = believe(tried, readings)
        best = max(readings) if over == "reading" else max(mean[tried])
        z = (min(mean[tried]) - mean if minimise else mean - best) / std
        found = np.array(score(std * (z * norm.cdf(z) + norm.pdf(z)), mean, std), dtype=float)
        if not again:
            found[tried] = -math.inf
        tried.append(tried[0] if again else int(found.argmax()))
        readings.append(objective(tried[-1]))
    return tried


def probable(objective: Any, tried: list[int], trials: int, believe: Any) -> list[int]:
    """The loop with the probability of improvement."""
    readings = [objective(cell) for cell in tried]
    while len(tried) < trials:
        mean, std = believe(tried, readings)
        found = (mean - max(mean[tried])) / std
        found[tried] = -math.inf
        tried.append(int(found.argmax()))
        readings.append(objective(tried[-1]))
    return tried


# What a reader may well write, and what the check must then say.
WRONG: dict[str, list[tuple[Any, str]]] = {
    "images_needed": [
        (lambda p, h: p * (1 - p) * (1.96 / (2 * h)) ** 2, "half width for the whole"),
        (lambda p, h: (p * (1 - p)) ** 0.5 * 1.96 / h, "square is missing"),
        (lambda p, h: p * (1 - p) / h**2, r"1\.96 is missing"),
        (lambda p, h: p * (1 - p) * (1.645 / h) ** 2, "90 % interval"),
        (lambda p, h: 0.25 * (1.96 / h) ** 2, "worst case"),
        (lambda p, h: (1.96 / h) ** 2, r"p \(1 - p\) is missing"),
        (lambda p, h: p * (1 - p) * (h / 1.96) ** 2, "upside down"),
        (lambda p, h: 1000, "about .* images are needed"),
        (lambda p, h: 1 / 0, "ZeroDivisionError"),
    ],
    "pareto_front": [
        (lambda pairs: pairs, "beaten by another"),
        (lambda pairs: running_maximum(pairs), "beaten by"),
        (lambda pairs: upper_hull(pairs), "straight line"),
        (lambda pairs: [pair for pair in pairs for _ in range(2)], "twice"),
        (lambda pairs: [max(pairs, key=lambda pair: pair[1])], "beaten by none"),
        (lambda pairs: [b for b in pairs if not any(a[0] < b[0] and a[1] > b[1] for a in pairs)], "beaten by another"),
        (lambda pairs: [b for b in pairs if not any(a[0] <= b[0] and a[1] >= b[1] for a in pairs)], "beaten by none"),
    ],
    "stop_early": [
        (lambda a, b, n: (a - b) ** 2 > 1.96**2 * (a + b), r"winner in 23\.6 % of the comparisons of equal models"),
        (lambda a, b, n: (a - b) ** 2 > 2.5**2 * (a + b), r"5\.6 % of the comparisons of equal models"),
        (lambda a, b, n: a > b, "of equal models"),
        (lambda a, b, n: False, "rival is not beaten: it takes 500"),
        (lambda a, b, n: n == 500 and (a - b) ** 2 > 1.96**2 * (a + b), r"not beaten: .*-177\.0 saved"),
        (lambda a, b, n: n % 100 == 0 and (a - b) ** 2 > 2.413**2 * (a + b), r"not beaten: .*: 0\.0 saved"),
        (lambda a, b, n: a > b and (a - b) ** 2 > 2.35**2 * (a + b), "where the second is, 500: name both"),
        (lambda a, b, n: n >= 100, "no model is in front"),
        (lambda a, b, n: (a - b) / (a + b + 1), "True to stop or False"),
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
    "taylor_scores": [
        (lambda net, w, x, y: w * gradient(net, w, x, y), "Signs are left in"),
        (lambda net, w, x, y: gradient(net, w, x, y).abs(), "gradient alone"),
        (lambda net, w, x, y: w.abs(), "That is magnitude"),
        (lambda net, w, x, y: (w * gradient(net, w, x, y)).square(), "no change of the loss"),
        (lambda net, w, x, y: (w * gradient(net, w, x, y, "sum")).abs(), "8 times too large"),
        (lambda net, w, x, y: (w * gradient(net, w, x, y)).abs().sum(), "One score for each"),
        (lambda net, w, x, y: F.cross_entropy(net(x), y).item(), "got float"),
        (lambda net, w, x, y: (w + gradient(net, w, x, y)).abs(), "the numbers are not"),
        (accumulating, "Right the first time"),
        (moving, "do not move it"),
    ],
    "own_ratios": [
        (0.95, "a dict of ratios"),
        ({}, "remove 0.0 %"),
        ({"fc1": 0.95}, "fc1: no such weight"),
        ({"fc1.weight": 1.0}, "from 0 to below 1"),
        ({"conv2.weight": 0.9, "fc1.weight": 0.9}, r"remove 89.1 % of all weights; 95 %"),
        (dict.fromkeys(("conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"), 0.95), "when the whole interval"),
        ({"conv2.weight": 0.6, "fc1.weight": 0.9999, "fc2.weight": 0.999, "conv1.weight": 0}, "must go|whole interval"),
    ],
    "sparse_break_even": [
        *((0.8, "stay"), (0.5, "one"), (0.25, "equate"), ("many", "ValueError"), (20, "between 0 and 1")),
    ],
    "ratio_for_a_tenth": [
        *((0.9, "hundredth"), (0.316, "stays"), (0.95, "multiply"), (0.5, "shrink"), (68, "between 0 and 1")),
    ],
    "translated_alpha": [
        (lambda a, t: a, "you change nothing"),
        (lambda a, t: a / t**2, "if the labels keep their weight"),
        (lambda a, t: a * t**2, "must add up to 1"),
        (lambda a, t: a * t**2 / (a * t**2 + 1 - a), "the way back"),
        (lambda a, t: a / (a + (1 - a) * t), "you take T"),
        (lambda a, t: 0.5, r"weight is 0\.1233; got 0\.5"),
    ],
    "wrong_soft_loss": [
        (lambda z, v, t: t**2 * soft(v, z, t), r"^At T = 1 the loss must be \d\.\d{4}; got \d\.\d{4}\.$"),
        (lambda z, v, t: t**2 * soft(z, v, t, "mean"), "5 times too small"),
        (lambda z, v, t: t**2 * soft(z, v, t, "sum"), "that is the sum"),
        (lambda z, v, t: t**2 * F.kl_div(F.softmax(z / t, 1), F.softmax(v / t, 1), reduction="batchmean"), "logarithm"),
        (lambda z, v, t: soft(z, v, t), "factor T.2 is missing"),
        (lambda z, v, t: soft(z, v, t, "mean") * t, "Over what|the loss must be"),
    ],
    "reverse_gradient": [
        (lambda z, v, t: -reverse(z, v, t), "sign is wrong"),
        (lambda z, v, t: 6 * reverse(z, v, t), "6 times too large"),
        (lambda z, v, t: reverse(z, v, t) / t, "a factor T is missing"),
        (lambda z, v, t: reverse(z, v, t) * t, "a factor T too many"),
        (lambda z, v, t: t * (torch.softmax(z / t, 1) - torch.softmax(v / t, 1)) / 6, r"gradient of KL\(q"),
        (lambda z, v, t: t * weighed(z, v, t) / 6, "the part with - p_k is missing"),
        (lambda z, v, t: t * reverse(z, v, 1), "both at temperature T"),
        (lambda z, v, t: reverse(z, v, t).mean(0), "shape of the logits"),
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
        (lambda share, p: math.floor(math.log(1 - p) / math.log(1 - share)) + 1, "reached exactly"),
        (lambda share, p: 10, "it takes"),
    ],
    "asha_turn": [
        (lambda rungs, eta: promotable(rungs, eta, order=iter), "the highest rung comes first"),
        (lambda rungs, eta: promotable(rungs, eta, among="waiting"), "those that have gone on count, too"),
        (lambda rungs, eta: promotable(rungs, eta, among="gone, too"), "has gone on already"),
        (lambda rungs, eta: promotable(rungs, eta, among="with the last", up=True), "rounded down, is none"),
        (lambda rungs, eta: promotable(rungs, eta, among="with the last"), "trained in full"),
        (
            lambda rungs, eta: one_of_the_best(rungs, eta, key=lambda each: each[0], everywhere=True),
            "the highest rung comes first",
        ),
        (
            lambda rungs, eta: one_of_the_best(rungs, eta, key=lambda each: -each[0]),
            "of the same rung, may go on too and is better",
        ),
        (
            lambda rungs, eta: one_of_the_best(rungs, eta, key=lambda each: -each[2]),
            "of the same rung, may go on too and is better",
        ),
        (by_count, "may go on; you begin a new one"),
        (lambda rungs, eta: "new", "may go on; you begin a new one"),
        (lambda rungs, eta: (0, min(range(len(rungs[0])), key=lambda at: rungs[0][at])), "send on the worst"),
        (lambda rungs, eta: max(rungs[0])[0], "give .rung, place. of a trial"),
    ],
    "halving_cost": [
        (from_scratch, "only the new epochs"),
        (from_below, r"the rungs are \[2, 6, 20\], counted from the top; yours seem to be \[2, 6, 18\]"),
        (lambda n, least, most, eta: n * most, "train all of them in full"),
        (lambda n, least, most, eta: n * least, "first rung only"),
        (lambda n, least, most, eta: n + most, "it is .* epochs"),
        (lambda *case: down_from_the_top(*case) + 0.9, "it is .* epochs"),
        (
            lambda *case: down_from_the_top(*case, whole=lambda share: max(1, int(share))),
            "no trial is left for the last rung",
        ),
        (lambda *case: down_from_the_top(*case, whole=round), "go on, too, you round down"),
    ],
    "hit_probabilities": [
        (lambda k, d, m, w: (1 - (1 - w**m) ** k**d, 1 - (1 - w**m) ** k**d), "different values of a parameter only"),
        (lambda k, d, m, w: (min(1, k * w), 1 - (1 - w**m) ** k**d), "all 2 of the parameters must hit"),
        (lambda k, d, m, w: ((k * w) ** m, 1 - (1 - w**m) ** k**d), "a line always hits"),
        (lambda k, d, m, w: ((1 - (1 - w) ** k) ** m, 1 - (1 - w**m) ** k**d), "they do not miss one by one"),
        (lambda k, d, m, w: (min(1, k * w) ** m, 1 - (1 - w) ** k**d), "in the same trial"),
        (lambda k, d, m, w: (min(1, k * w) ** m, 1 - (1 - w**m) ** k), r"k\^d = 9 trials"),
        (lambda k, d, m, w: (min(1, k * w) ** m, k**d * w**m), "do not add up"),
        (lambda k, d, m, w: (min(1, k * w) ** m,) * 2, "do not share values"),
        (lambda k, d, m, w: 1 - (1 - w) ** (k**d), "two probabilities"),
    ],
    "beat_hyperband": [
        (at_random, r"-.* points .* beaten where the whole interval is above 0"),
        (partial(at_random, trials=6), "You train 100 epochs; the budget is 88"),
        (lambda train, space, seed: {"lr": 0.05, "dropout": 0.0}, "beaten where the whole interval is above 0"),
        (without_dropout, "beaten where the whole interval is above 0"),
        (lambda train, space, seed: (0.05, 0.0), "a dictionary"),
        (lambda train, space, seed: {"lr": 100.0, "dropout": 0.0}, "ValueError"),
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
    "posterior_of_means": [
        (lambda *a: of_means(*a, noise=lambda s2, c: s2 + 0 * c), "noise of one network"),
        (lambda *a: of_means(*a, noise=lambda s2, c: 0 * c), "no noise in it"),
        (lambda *a: of_means(*a, noise=lambda s2, c: s2 * c), "the other way round"),
        (lambda *a: of_means(*a, noise=lambda s2, c: s2 / np.sqrt(c)), "falls with the root of c"),
        (lambda *a: of_means(*a, noise=lambda s2, c: s2 / c**2), "c squared"),
        (lambda *a: of_means(*a, noise=lambda s2, c: s2 / c.sum() + 0 * c), "its own, by its own count"),
        (lambda *a: (of_means(*a)[0] + 1, of_means(*a)[1]), "the mean: it is|The mean: it is"),
        (lambda *a: (of_means(*a)[0], of_means(*a)[1] ** 0.5), "standard deviation"),
        (lambda *a: (of_means(*a)[0], of_means(*a)[1] + a[-1]), "new reading"),
        (lambda *a: (of_means(*a)[0], 1 - of_means(*a)[1]), "took off"),
        (lambda *a: (of_means(*a)[0], of_means(*a, noise=lambda s2, c: s2 + 0 * c)[1]), "variance does not"),
        (lambda *a: (of_means(*a)[0], 0 * of_means(*a)[1]), "The variance: it is"),
        (lambda *a: of_means(*a)[0], "7 numbers each"),
    ],
    "noisy_loop": [
        (lambda *a: looped(*a, over="reading"), "may be luck"),
        (lambda *a: looped(*a, score=lambda gained, mean, std: mean), "only exploits"),
        (probable, "probability of improvement"),
        (lambda *a: looped(*a, score=lambda gained, mean, std: std), "only explores"),
        (lambda *a: looped(*a, score=lambda gained, mean, std: -gained), "smallest expected improvement"),
        (lambda *a: looped(*a, minimise=True), "more is better"),
        (lambda *a: looped(*a, score=lambda *_: -abs(np.arange(40.0) - 12)), "larger expected improvement"),
        (lambda *a: looped(*a, again=True), "tried before"),
        (lambda *a: looped(*a)[3:], "all 12 cells"),
        (lambda *a: [*looped(*a)[:11], 7], "Read each cell once"),
    ],
    "beat_the_loop": [
        (lambda objective, d, trials, rng: [objective(place) for place in rng.random((trials, d))], "below 1"),
        (lambda objective, d, trials, rng: loop(objective, d, trials, rng), r"is 1 times .*1 to 1, 24 searches"),
        (lambda objective, d, trials, rng: [objective(rng.random(d)) for _ in range(trials + 1)], "one more"),
        (lambda objective, d, trials, rng: objective(2 + rng.random(d)), "between 0 and 1"),
        (lambda objective, d, trials, rng: objective(0.5), "must be 2 numbers"),
        (lambda objective, d, trials, rng: 0.0, "tried nothing"),
    ],
}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize(
    ("name", "wrong", "reason"), [(name, *pair) for name, pairs in WRONG.items() for pair in pairs]
)
def test_a_wrong_answer_is_told_why(name: str, wrong: Any, reason: str) -> None:
    verdict = getattr(exercises, name)(wrong, *BESIDE.get(name, []))
    assert not verdict.right
    assert re.search(reason, verdict.message), verdict.message
