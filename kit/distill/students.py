"""Whole classes of students: every recipe with several seeds, trained as one cohort, each student remembered.

Arguments of another type are refused by a TypeError.
"""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

import torch
from torch import Tensor, nn

from kit import checks, cohort, models, training
from kit.data import Dataset, Split
from kit.distill.fit import answers, standardised
from kit.measure import Estimate

LEARNING_RATE = 1e-2  # for 20 epochs on the digits: at 1e-3 students of 16 units are not half trained after them
SMOOTHING = 0.1  # of the rival with label smoothing (Szegedy et al. 2016, arXiv:1512.00567)
WEIGHT_BYTES = 128_000_000  # of students that are kept whole; of older ones only the answers are


@dataclass(frozen=True)
class Recipe:
    """One way to train a student; only its seed is left open.

    Attributes:
        transfer: the samples on which it meets its teacher.
        temperature: of the soft labels, 0.01 to 1e6.
        alpha: weight of the soft labels, in [0, 1].
        width: hidden units, or numbers a token (`cohort.template`); 0 is a single linear layer, for numbers alone.
        epochs: passes over the transfer set, 1 or more.
        label_smoothing: of the hard labels, in [0, 1].

    Raises:
        ValueError: an attribute out of range.
    """

    transfer: Split
    temperature: float = 4.0
    alpha: float = 0.9
    width: int = 32
    epochs: int = 20
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that no student can be trained with."""
        training.check_split("transfer", self.transfer)
        cohort.check_temperature(self.temperature)
        checks.share("alpha, the weight of the soft labels,", self.alpha)
        checks.whole("width", self.width)
        checks.whole("epochs", self.epochs, 1)
        checks.share("label_smoothing", self.label_smoothing)

    @property
    def hard(self) -> Recipe:
        """The rival without a teacher: the same student, samples and steps, hard labels alone."""
        return replace(self, temperature=1.0, alpha=0.0, label_smoothing=0.0)

    @property
    def smoothed(self) -> Recipe:
        """The rival with label smoothing in place of a teacher."""
        return replace(self.hard, label_smoothing=SMOOTHING)


@dataclass(frozen=True)
class Group:
    """What the students of one recipe reached on the validation split, one per seed.

    Attributes:
        recipe: how they were trained.
        seeds: of each.
        named: the class that each student names for each validation sample, [seeds, n]; -1 where it diverged.
        labels: the right classes, [n].
    """

    recipe: Recipe
    seeds: tuple[int, ...]
    named: Tensor = field(compare=False)
    labels: Tensor = field(compare=False)

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Share of right answers of each student."""
        return tuple((self.named == self.labels).float().mean(1).tolist())

    @property
    def diverged(self) -> int:
        """How many students answer NaN or infinity; such an answer counts as wrong."""
        return int((self.named < 0).any(1).sum())

    @property
    def accuracy(self) -> Estimate:
        """Mean over seeds with Student's t interval."""
        return Estimate.from_values(self.accuracies).share

    def answers_to(self, label: int) -> tuple[Estimate, ...]:
        """Of the samples of class `label`, the share that each class is named for: a row of the confusion matrix.

        Means over seeds with Student's t intervals, one per class that is named or right, 0 .. C - 1.
        """
        of_class = self.named[:, self.labels == label]  # [seeds, n_label]
        classes = range(int(max(self.labels.max(), self.named.max())) + 1)
        return tuple(Estimate.from_values((of_class == each).float().mean(1).tolist()).share for each in classes)

    @property
    def median(self) -> int:
        """The seed of the student in the middle: the fair one to show. Choosing the best would flatter the recipe."""
        ordered = sorted(zip(self.accuracies, self.seeds, strict=True))
        return ordered[(len(ordered) - 1) // 2][1]


class Students:
    """Trains students of one teacher, remembers each, and trains only what is missing.

    They are MLPs; or bags of words (`models.BagOfWords`), where the data set is of texts.

    Args:
        teacher: any module, not changed.
        dataset: validation measures the students; test is not read.
        lr: learning rate of all students, with Adam.
        batch_size: samples per step.

    Raises:
        ValueError: a teacher that cannot take the samples, or that answers with other classes than the data set has.
    """

    def __init__(
        self, teacher: nn.Module, dataset: Dataset, *, lr: float = LEARNING_RATE, batch_size: int = 64
    ) -> None:
        checks.instance("teacher", teacher, nn.Module, "a module")
        training.check_dataset(dataset)
        checks.number("lr", lr, above=0)
        checks.whole("batch_size", batch_size, 1)
        self.teacher, self.dataset, self.lr, self.batch_size = teacher, dataset, lr, batch_size
        self.logits = self._checked(dataset.validation.inputs)  # [n, C], of the validation split
        self._taught: dict[Split, Tensor] = {}
        self._templates: dict[int, nn.Module] = {}
        self._named: dict[tuple[Recipe, int], Tensor] = {}
        self._whole: OrderedDict[tuple[Recipe, int], nn.Module] = OrderedDict()

    def trained(self, recipe: Recipe, seeds: Sequence[int]) -> bool:
        """Whether all of these seeds of a recipe are trained."""
        return all((recipe, seed) in self._named for seed in seeds)

    def known(self, recipe: Recipe, seeds: Sequence[int]) -> Group | None:
        """The students of a recipe, if all of these seeds are trained."""
        if not self.trained(recipe, seeds):
            return None
        named = torch.stack([self._named[recipe, seed] for seed in seeds]).long()
        return Group(recipe, tuple(seeds), named, self.dataset.validation.labels)

    def train(
        self,
        recipes: Iterable[Recipe],
        seeds: Sequence[int],
        *,
        callbacks: Sequence[training.Callback] = (),
        cancel: Event | None = None,
    ) -> list[Group]:
        """Train what is missing of all recipes and seeds: one cohort for each transfer set, width and number of epochs.

        Gives one group per recipe, in their order. `seeds` are at least two, none twice, so that there is a spread;
        `callbacks` and `cancel` are those of `cohort.fit`, for each cohort in turn.

        Raises:
            training.Cancelled: `cancel` was set; whole cohorts before are remembered.
            ValueError: fewer than two seeds, one twice, or a recipe that the teacher or the samples do not allow.
            MemoryError: more students than fit.
        """
        checks.instance("seeds", seeds, Iterable, "a list of whole numbers")
        seeds = tuple(checks.whole("each of seeds", seed) for seed in seeds)
        if len(seeds) < 2 or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds needs at least two, none twice, to show a spread; got {list(seeds)}.")
        checks.instance("recipes", recipes, Iterable, "a list of Recipe objects")
        asked = list(recipes)
        for recipe in asked:
            checks.instance("each of recipes", recipe, Recipe)
        alike: dict[tuple[Split, int, int], list[tuple[Recipe, int]]] = {}
        for recipe, seed in itertools.product(dict.fromkeys(asked), seeds):
            if (recipe, seed) not in self._named:
                alike.setdefault((recipe.transfer, recipe.width, recipe.epochs), []).append((recipe, seed))
        for missing in alike.values():
            self._train(missing, callbacks, cancel)
        return [group for recipe in asked if (group := self.known(recipe, seeds)) is not None]

    def model(self, recipe: Recipe, seed: int) -> nn.Module:
        """A copy of one student, as a module of its own; one that is no longer kept whole is trained again.

        Raises:
            KeyError: never trained.
        """
        if (recipe, seed) not in self._named:
            raise KeyError(f"no student was trained by {recipe} with seed {seed}.")
        if (recipe, seed) not in self._whole:
            self._train([(recipe, seed)])
        return copy.deepcopy(self._whole[recipe, seed])

    def n_parameters(self, width: int) -> int:
        """Parameters of a student of that width."""
        return sum(each.numel() for each in self._template(checks.whole("width", width)).parameters())

    def _template(self, width: int) -> nn.Module:
        if width not in self._templates:
            self._templates[width] = cohort.template(self.dataset, width)
        return self._templates[width]

    def _train(
        self,
        missing: Sequence[tuple[Recipe, int]],
        callbacks: Sequence[training.Callback] = (),
        cancel: Event | None = None,
    ) -> None:
        """Train students with one transfer set, width and number of epochs, as one cohort."""
        recipe, _ = missing[0]
        transfer = recipe.transfer
        if transfer not in self._taught:
            self._taught[transfer] = self._checked(transfer.inputs)
        members = [
            cohort.Member(seed, self.lr, temperature=of.temperature, alpha=of.alpha, label_smoothing=of.label_smoothing)
            for of, seed in missing
        ]
        students = cohort.Cohort(self._template(recipe.width), members)
        loop: dict[str, Any] = {"epochs": recipe.epochs, "batch_size": self.batch_size, "callbacks": callbacks}
        cohort.fit(students, transfer, teacher_logits=self._taught[transfer], cancel=cancel, **loop)
        named = cohort.answers(students, self.dataset.validation.inputs).to(torch.int16)  # [K, n]
        for at, key in enumerate(missing):
            self._named.setdefault(key, named[at])
            self._whole[key] = students.model(at).eval()
        size = 4 * students.n_parameters
        while len(self._whole) * size > WEIGHT_BYTES and len(self._whole) > len(missing):
            self._whole.popitem(last=False)

    def _checked(self, inputs: Tensor) -> Tensor:
        logits, classes = answers(self.teacher, inputs), self.dataset.n_classes
        if logits.shape[1] != classes:
            raise ValueError(f"teacher answers {logits.shape[1]} classes, and the data set has {classes}.")
        return logits


def hinted(
    template: models.MLP,
    members: Sequence[cohort.Member],
    transfer: Split,
    features: Tensor,
    *,
    epochs: int,
    cancel: Event | None = None,
) -> list[nn.Module]:
    """`hint` for a whole cohort of MLPs: students whose last hidden layer has learned to predict the teacher's.

    Gives one module per member, its last layer as drawn, to start from: `Cohort(template, members, start=...)`.

    Args:
        template: the students, with at least one hidden layer.
        members: one per student; seed, learning rate and width are used.
        transfer: the samples; labels are not read.
        features: of the teacher's hidden layer, [n, F], as `distill.features` gives them.
        epochs: passes over the transfer set.
        cancel: looked at before each batch.

    Raises:
        ValueError: a template without a hidden layer, or features of another shape.
    """
    checks.instance("template", template, models.MLP, "an MLP, which the hint can start")
    checks.instance("features", features, Tensor, "a tensor [n, F], as distill.features gives it")
    if features.ndim != 2:
        raise ValueError(f"features must be [n, F], as distill.features gives them; got shape {tuple(features.shape)}.")
    if len(template.sizes) < 3:
        raise ValueError("template needs a hidden layer to give a hint to; a single linear layer has none.")
    predicting = cohort.Cohort(models.MLP([*template.sizes[:-1], features.shape[1]]), members)
    cohort.fit(predicting, transfer, epochs=epochs, values=standardised(features), cancel=cancel)
    starts = list(cohort.Cohort(template, members).models())
    last = f"layers.{len(template.sizes) - 2}."  # of the regressor in one, of the student in the other
    for start, taught in zip(starts, predicting.models(), strict=True):
        lower = {name: tensor for name, tensor in taught.state_dict().items() if not name.startswith(last)}
        start.load_state_dict(lower, strict=False)
    return starts


def generations(
    template: nn.Module, members: Sequence[cohort.Member], transfer: Split, count: int, *, epochs: int
) -> list[cohort.Cohort]:
    """Self-distillation: the first generation learns from the labels, each later one from the one before it.

    Args:
        template: of all networks, teachers and students alike.
        members: one per family; temperature and alpha are those of the later generations.
        transfer: the samples.
        count: generations, 1 or more.
        epochs: of each generation.

    Returns:
        One cohort per generation; network k of each is taught by network k of the one before, and drawn anew.

    Raises:
        ValueError: a count below 1, alpha 0 for all members, or as `cohort.fit`.

    Source: Furlanello et al. (2018), Born-again neural networks, arXiv:1805.04770.
    """
    checks.whole("count", count, 1)
    for member in members:
        checks.instance("each of members", member, cohort.Member)
    if count > 1 and all(member.alpha == 0 for member in members):
        raise ValueError("members: alpha is 0 for all, so no generation would learn from another; give alpha above 0.")
    taught: list[cohort.Cohort] = []
    for number in range(count):
        logits = taught[-1](transfer.inputs) if taught else None  # [K, n, C]
        own = [replace(each, seed=each.seed + 10_000 * number, alpha=each.alpha * (number > 0)) for each in members]
        taught.append(cohort.Cohort(template, own))
        cohort.fit(taught[-1], transfer, epochs=epochs, teacher_logits=logits)
    return taught
