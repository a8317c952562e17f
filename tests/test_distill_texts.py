"""Distillation of texts: a transformer teaches transformers and bags of words, also on thinned texts."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit import board, distill, models, training
from kit.cohort import UNLABELLED
from kit.data import Split
from kit.distill import Recipe, Students
from kit.explorers import DistillationExplorer
from tests.texts import tiny_texts, tokens

pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def teacher() -> models.Transformer:
    texts = tiny_texts()
    net = models.Transformer(tokens().size, 10, 3, width=16, heads=4, layers=1)
    training.fit(net, texts, epochs=4, batch_size=16, lr=1e-2)
    return net.eval()


def right(net: nn.Module) -> float:
    split = tiny_texts().validation
    return float((training.predict(net, split.inputs).argmax(1) == split.labels).float().mean())


@pytest.mark.parametrize("kind", ["transformer", "bag of words"])
def test_a_student_learns_from_soft_labels_alone(kind: str) -> None:
    texts = tiny_texts()
    size = tokens().size
    student: nn.Module = models.BagOfWords(size, 3, 8, seed=1)
    if kind == "transformer":
        student = models.Transformer(size, 10, 3, width=8, heads=2, layers=1, seed=1)
    unlabelled = Split(texts.train.inputs, torch.full_like(texts.train.labels, UNLABELLED))
    distill.fit(student, teacher(), unlabelled, epochs=6, batch_size=16, lr=3e-2, alpha=1)
    assert right(teacher()) > 0.95
    assert right(student) > 0.9


def test_a_hint_of_a_block_starts_the_block_of_a_student() -> None:
    texts = tiny_texts()
    student = models.Transformer(tokens().size, 10, 3, width=8, heads=2, layers=1, seed=1)
    layers: dict[str, Any] = {"student_layer": "blocks.0", "teacher_layer": "blocks.0"}
    head = student.head.weight.clone()
    history = distill.hint(student, teacher(), texts.train, epochs=4, lr=1e-2, **layers)
    assert history.losses[-1] < 0.8 * history.losses[0]
    assert torch.equal(student.head.weight, head)  # nothing above the layer moves


def test_students_of_texts_are_bags_of_words() -> None:
    texts = tiny_texts()
    students = Students(teacher(), texts, lr=3e-2, batch_size=16)
    recipe = Recipe(texts.train, width=4, epochs=4)
    (group,) = students.train([recipe], range(3))
    assert group.accuracy.value > 0.9
    student = students.model(recipe, 1)
    assert isinstance(student, models.BagOfWords)
    assert group.accuracies[1] == pytest.approx(right(student))
    for width in (1, 4):
        counted = sum(each.numel() for each in models.BagOfWords(tokens().size, 3, width).parameters())
        assert students.n_parameters(width) == counted
    with pytest.raises(ValueError, match=r"^width must be 1 or more; got 0\.$"):
        students.train([Recipe(texts.train, width=0, epochs=1)], range(2))


def is_inside(short: list[int], long: list[int]) -> bool:
    """Whether one list is the other with some left out."""
    rest = iter(long)
    return all(any(each == other for other in rest) for each in short)


def listed(row: Tensor) -> list[int]:
    return [each for each in row.tolist() if each]


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_thinned_texts_lose_a_share_of_their_tokens_and_close_up(share: float) -> None:
    ids = torch.randint(1, 50, (400, 12), generator=torch.Generator().manual_seed(0))
    ids[torch.arange(12) >= torch.arange(400)[:, None] % 13] = 0  # 0 to 12 tokens
    split = Split(ids, torch.arange(400))
    both = distill.thinned(split, share, seed=3)
    assert torch.equal(both.inputs[:400], ids) and torch.equal(both.labels, split.labels.repeat(2))
    for before, after in zip(ids, both.inputs[400:], strict=True):
        assert is_inside(listed(after), listed(before))
        assert after[: len(listed(after))].all()  # padding at the end alone
        assert bool(after.any()) == bool(before.any())
    left = (both.inputs[400:] != 0).sum() / (ids != 0).sum()
    if share < 0.5:
        assert left == pytest.approx(1 - share, abs=0.03)
    assert torch.equal(both.inputs, distill.thinned(split, share, seed=3).inputs)
    assert share == 0 or not torch.equal(both.inputs, distill.thinned(split, share, seed=4).inputs)


def test_only_texts_are_thinned() -> None:
    labels = torch.zeros(4, dtype=torch.int64)
    for inputs, came in (
        (torch.zeros(4, 5), r"float32 of shape \(5,\)"),
        (torch.zeros(4, 5, 5).long(), r"int64 of shape \(5, 5\)"),
    ):
        with pytest.raises(ValueError, match=f"^split must hold texts, .* to be thinned; got samples in {came}"):
            distill.thinned(Split(inputs, labels))
    with pytest.raises(ValueError, match=r"^share must lie in \[0, 1\); got 1\.$"):
        distill.thinned(tiny_texts().train, 1)


def test_the_explorer_distils_a_transformer_into_bags_of_words(own_board: Path) -> None:
    explorer = DistillationExplorer(teacher(), tiny_texts(), width=4, seeds=4, epochs=5)
    try:
        explorer.transfer.value = "and thinned"
        explorer.wait()
        assert isinstance(explorer.model, models.BagOfWords)
        assert 0 not in [stop for _, stop in explorer.width.options]
        said = explorer.status.value
        assert "students of 4 numbers a token" in said and "over texts" in said
        settings = explorer.settings
        sample = tiny_texts().validation.inputs[tiny_texts().validation.labels == settings.label][settings.image]
        assert tokens().decode(sample) in said
        explorer.pin()
        explorer.wait()
        assert board.frame(tiny_texts().key)["name"].item().startswith("bag 4 distilled, T 4")
    finally:
        explorer.close()
    with pytest.raises(ValueError, match=r"^width must be 1 or more; got 0\.$"):
        DistillationExplorer(teacher(), tiny_texts(), width=0)
