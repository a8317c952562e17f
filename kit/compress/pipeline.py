"""The whole way to a small file, step by step: low rank, pruning, sharing or quantising, Huffman coding.

The order is that of Deep Compression (Han et al. 2016, arXiv:1510.00149), with low rank before it. What is done by a
recipe up to some step is a recipe itself, with all later steps off: so each step is made once, whatever comes after.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event, Lock
from typing import Any, Literal, get_args

from torch import nn

from kit import checks, files, measure, prune, sizes, training
from kit.compress.encode import Encoded, Ledger, decoded, encode
from kit.compress.encode import ledger as written
from kit.compress.low_rank import low_rank
from kit.compress.quantise import fine_tune_quantised, quantise
from kit.compress.share import fine_tune as tune_codebooks
from kit.compress.share import share
from kit.data import Dataset
from kit.inference import give_back
from kit.measure import Estimate

Kind = Literal["shared", "uniform", "off"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_BITS = 8  # of a code

MODEL_BYTES = 256_000_000  # models that a compression keeps
NOT_WRITTEN = Ledger(0, 0, 0, 0, 0, 0)  # of a file that is not written yet


@dataclass(frozen=True)
class Recipe:
    """What is done to a model, in the order of the fields.

    Attributes:
        energy: share of each layer's squared singular values that low rank keeps, in (0, 1]; 1 leaves the layers whole.
        ratio: share of the weights to prune, in [0, 1): the smallest of the network; 0 prunes none.
        kind: of the numbers that are left: "shared" (a codebook a layer), "uniform" (a grid a layer), or "off".
        bits: of a code: `2 ** bits` clusters, or levels of the grid; 2 .. 8.
        huffman: whether codes and gaps have Huffman codes, or all as many bits.
        epochs: of fine-tuning after each step that loses something, and after each round of pruning.
        rounds: in which the ratio is reached, fast at first and then slower (`prune.schedule`, "cubic"); 1 or more.
        seed: of the order of the samples.
        lr: learning rate of the fine-tuning, with Adam; above 0.
        weight_decay: L2 coefficient of the fine-tuning, 0 or more.

    Raises:
        TypeError, ValueError: an attribute outside of these.
    """

    energy: float = 1.0
    ratio: float = 0.9
    kind: Kind = "shared"
    bits: int = 5
    huffman: bool = True
    epochs: int = 0
    rounds: int = 1
    seed: int = 0
    lr: float = 1e-3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no step can take."""
        if not checks.share("energy, the share to keep,", self.energy):
            raise ValueError("energy, the share to keep, must lie in (0, 1]; got 0.")
        checks.share("ratio, the share to remove,", self.ratio, one=False)
        checks.one_of("kind", self.kind, KINDS)
        checks.whole("bits", self.bits, 2, MOST_BITS)
        checks.instance("huffman", self.huffman, bool)
        checks.whole("epochs", self.epochs)
        checks.whole("rounds", self.rounds, 1)
        checks.whole("seed", self.seed)
        checks.number("lr", self.lr, above=0)
        checks.number("weight_decay", self.weight_decay, least=0)

    def __str__(self) -> str:
        """In words: `90 % pruned, shared, 5 bits, Huffman`."""
        said = [f"low rank {100 * self.energy:.4g} %"] * (self.energy < 1)
        said += [f"{100 * self.ratio:.4g} % pruned"] * (self.ratio > 0)
        said += [f"{self.kind}, {self.bits} bits"] * (self.kind != "off") + ["Huffman"] * self.huffman
        said += [f"{self.epochs} epoch{'s' * (self.epochs > 1)} a step, seed {self.seed}"] * (self.key.epochs > 0)
        return ", ".join(said) or "dense"

    @property
    def key(self) -> Recipe:
        """The recipe that does the same and says nothing of what it leaves out."""
        idle = {"epochs", "rounds", "seed", "lr", "weight_decay"} if not (self.epochs and self._loses) else set()
        idle |= {"bits"} if self.kind == "off" else set()
        idle |= {"rounds"} if not self.ratio else set()
        return replace(self, **{name: getattr(NOTHING, name) for name in idle})

    @property
    def steps(self) -> tuple[tuple[str, Recipe], ...]:
        """The steps by name, each with the recipe up to it; the first one leaves the model as it is."""
        done, found = NOTHING, [("dense", NOTHING)]
        how = {name: getattr(self, name) for name in ("epochs", "rounds", "seed", "lr", "weight_decay")}
        for step, on, change in (
            ("low rank", self.energy < 1, {"energy": self.energy, **how}),
            ("pruned", self.ratio > 0, {"ratio": self.ratio, **how}),
            (self.kind, self.kind != "off", {"kind": self.kind, "bits": self.bits, **how}),
            ("Huffman", self.huffman, {"huffman": True}),
        ):
            if on:
                done = replace(done, **change)
                found.append((step, done.key))
        return tuple(found)

    @property
    def _loses(self) -> bool:
        return self.energy < 1 or self.ratio > 0 or self.kind != "off"


NOTHING = Recipe(ratio=0.0, kind="off", huffman=False)


@dataclass(frozen=True)
class Step:
    """A model after one step, and the file that it then makes.

    Attributes:
        name: "dense", "low rank", "pruned", "shared", "uniform" or "Huffman".
        recipe: all that was done up to here.
        ledger: where the bytes of its file are; really written, and read back equal. `NOT_WRITTEN` while it is not.
        accuracy: on the validation split, or on its first slices (see `whole`).
        whole: whether `accuracy` rests on all validation samples.
        nonfinite: samples for which the model answers NaN or infinity; they count as wrong.
    """

    name: str
    recipe: Recipe
    ledger: Ledger
    accuracy: Estimate
    whole: bool = True
    nonfinite: int = 0


@dataclass(frozen=True)
class Compressed:
    """A compressed model with plain weights, its file, and how each step went."""

    model: nn.Module
    data: bytes
    steps: tuple[Step, ...]

    @property
    def times_smaller(self) -> float:
        """The dense file over this one."""
        return self.steps[0].ledger.total / len(self.data)


def pipeline(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    callbacks: Sequence[training.Callback] = (),
    cancel: Event | None = None,
) -> Compressed:
    """Compress `model` by `recipe`, and measure after each step.

    Args:
        model: any module with a prunable weight; not changed.
        dataset: train fine-tunes, validation measures.
        recipe: what is done.
        callbacks: called in fine-tuning.
        cancel: looked at between batches.

    Raises:
        TypeError, ValueError: as `Compression`.
        training.Cancelled: `cancel` was set.
    """
    checks.instance("recipe", recipe, Recipe)
    compression = Compression(model, dataset)
    steps = tuple(compression.step(each, callbacks=callbacks, cancel=cancel) for _, each in recipe.steps)
    return Compressed(compression.model(recipe), compression.encoded(recipe).data, steps)


class Compression:
    """Compresses one model by any recipe, and remembers each step: what comes before a change is not done again.

    Args:
        model: any module with a prunable weight; copied, so that later training changes nothing here.
        dataset: train fine-tunes, validation measures.
        slice_size: samples per slice of the validation split; see `step`.

    One thread computes; others may ask for what is remembered meanwhile.

    Raises:
        TypeError, ValueError: nothing to compress, or samples that the model cannot take.
    """

    def __init__(self, model: nn.Module, dataset: Dataset, *, slice_size: int = 1024) -> None:
        training.check_fits(model, dataset)
        self.dense, self.dataset, self.slice_size = prune.plain(model).eval(), dataset, slice_size
        prune.prunable(self.dense)
        self._bytes, self.large = measure.dense_bytes(self.dense), not training.is_small(self.dense)
        self._models: OrderedDict[Recipe, nn.Module] = OrderedDict()
        self._models_lock = Lock()  # a look-up and an eviction must not meet
        self._ledgers: dict[Recipe, Ledger] = {}
        self._steps: dict[Recipe, Step] = {}

    def model(
        self, recipe: Recipe, *, callbacks: Sequence[training.Callback] = (), cancel: Event | None = None
    ) -> nn.Module:
        """The compressed model, in evaluation mode; the latest are remembered, up to 256 MB of them, two at least.

        Those of a large model share tensors that no step has changed: train a copy of them.

        Raises:
            TypeError: no recipe.
            ValueError: what a step refuses.
            training.Cancelled: `cancel` was set.
        """
        checks.instance("recipe", recipe, Recipe)
        lossy = [(name, each) for name, each in recipe.steps if name != "Huffman"]
        key = lossy[-1][1]
        if len(lossy) == 1:
            return self.dense
        with self._models_lock:
            if key in self._models:
                self._models.move_to_end(key)
                return self._models[key]
        before = self.model(lossy[-2][1], callbacks=callbacks, cancel=cancel)
        with self._models_lock:  # first, so that there is never one more in memory; what was just asked for stays
            while len(self._models) >= max(2, MODEL_BYTES // self._bytes):
                self._models.popitem(last=False)
        if self.large:
            give_back()
        with training.interruptible(self.dense, cancel, f"before the step {lossy[-1][0]!r} was done"):
            made = _STEPS[lossy[-1][0]](before, self.dataset, key, {"callbacks": callbacks, "cancel": cancel}).eval()
        del before  # of a large model the room is needed
        if self.large:
            give_back()
        with self._models_lock:
            if self.large and len(lossy) == 3 and lossy[1][0] == "pruned" and not key.epochs:
                self._models.pop(lossy[1][1], None)  # made again in a moment; its room is needed for the file
            self._models[key] = made
        return made

    def encoded(self, recipe: Recipe) -> Encoded:
        """The compressed model's file, and where its bytes are; as `model`.

        That of `NOTHING` is plain safetensors.

        Raises:
            RuntimeError: what was read back differs (never seen; it would mean a broken format).
        """
        if recipe.key == NOTHING:
            data = files.encode(self.dense, sparse=False)
            sizes.check_back(self.dense.state_dict(), files.decode(data))
            return Encoded(data, self._plain(len(data)))
        model = self.model(recipe)
        encoded, state = encode(model, huffman=recipe.huffman), model.state_dict()
        if self.large:
            give_back()
        for name, tensor in decoded(encoded.data):
            sizes.check_back({name: state[name]}, {name: tensor})
        return encoded

    def _plain(self, length: int) -> Ledger:
        """Of a plain safetensors file of so many bytes."""
        return Ledger(0, 0, 0, 0, header=length - self._bytes, raw=self._bytes)

    def ledger(self, recipe: Recipe, *, cancel: Event | None = None) -> Ledger:
        """Where the bytes of the file are, remembered; as `encoded`, but the file is never there as a whole.

        `cancel` is looked at between tensors, and between parts of a large one.
        """
        if recipe.key not in self._ledgers:
            if self.large:
                give_back()  # what forward passes took
            with training.interruptible(self.dense, cancel, "while the file was written"):
                if recipe.key == NOTHING:
                    ledger = self._plain(files.length(self.dense, sparse=False))
                else:
                    ledger = written(self.model(recipe), huffman=recipe.huffman)
            self._ledgers[recipe.key] = ledger
            if self.large:
                give_back()
        return self._ledgers[recipe.key]

    def known(self, recipe: Recipe) -> Step | None:
        """The last step of the recipe if it is remembered."""
        return self._steps.get(recipe.key)

    def step(
        self,
        recipe: Recipe,
        *,
        callbacks: Sequence[training.Callback] = (),
        cancel: Event | None = None,
        on_slice: Callable[[Step], None] | None = None,
        enough: int | None = None,
    ) -> Step:
        """Compress and measure on the validation split, slice by slice; the last step of the recipe, remembered.

        `on_slice` is called with each answer before the last, which rests on the slices so far; of a large model the
        first time before the file is written, which takes longer than a slice. After `enough` samples
        no more are measured; without it, they are all the next time. The other arguments and errors are those of
        `model`.
        """
        key, split = recipe.key, self.dataset.validation
        if (found := self._steps.get(key)) and (found.whole or (enough and found.accuracy.n >= enough)):
            return found
        model, (name, _) = self.model(recipe, callbacks=callbacks, cancel=cancel), recipe.steps[-1]
        first = self.large and on_slice is not None and key not in self._ledgers
        ledger = NOT_WRITTEN if first else self.ledger(recipe, cancel=cancel)
        if (same := self._steps.get(replace(recipe, huffman=False).key)) and same.whole:  # Huffman changes no weight
            self._steps[key] = replace(same, name=name, recipe=key, ledger=self.ledger(recipe, cancel=cancel))
            return self._steps[key]
        for counts in training.evaluate_slices(model, split, batch_size=self.slice_size, cancel=cancel):
            if first and counts.total > self.slice_size:
                ledger, first = self.ledger(recipe, cancel=cancel), False
            accuracy, whole = Estimate.from_counts(counts.correct, counts.total), counts.total == len(split)
            step = Step(name, key, ledger, accuracy, whole, counts.nonfinite)
            if enough and counts.total >= enough:
                break
            if on_slice is not None and not whole:
                on_slice(step)
        self._steps[key] = replace(step, ledger=self.ledger(recipe, cancel=cancel))
        return self._steps[key]


def _factored(model: nn.Module, dataset: Dataset, recipe: Recipe, how: dict[str, Any]) -> nn.Module:
    smaller = low_rank(model, energy=recipe.energy, share=not training.is_small(model)).model
    return _tuned(prune.fine_tune, smaller, dataset, recipe, how)


def _pruned(model: nn.Module, dataset: Dataset, recipe: Recipe, how: dict[str, Any]) -> nn.Module:
    for done, ratio in enumerate(prune.schedule("cubic", recipe.ratio, recipe.rounds)):
        # What is not pruned may be shared: no step changes a model in place.
        masks = prune.cut(prune.score_weights(model), ratio)
        model = prune.apply_masks(model, masks, share=not training.is_small(model))
        model = _tuned(prune.fine_tune, model, dataset, replace(recipe, seed=recipe.seed + done), how)
    return model


def _shared(model: nn.Module, dataset: Dataset, recipe: Recipe, how: dict[str, Any]) -> nn.Module:
    largest = max(
        weight.numel() for weight in prune.prunable(model, embeddings=True).values()
    )  # more clusters are refused
    shared = share(model, min(2**recipe.bits, largest), biases=True)
    return _tuned(tune_codebooks, shared, dataset, recipe, how)


def _uniform(model: nn.Module, dataset: Dataset, recipe: Recipe, how: dict[str, Any]) -> nn.Module:
    if not recipe.epochs:
        return quantise(model, recipe.bits, per="tensor", clip=True)
    return _tuned(partial(fine_tune_quantised, bits=recipe.bits, per="tensor", clip=True), model, dataset, recipe, how)


_STEPS: dict[str, Callable[[nn.Module, Dataset, Recipe, dict[str, Any]], nn.Module]] = {
    **{"low rank": _factored, "pruned": _pruned, "shared": _shared, "uniform": _uniform}
}


def _tuned(tune: Any, model: nn.Module, dataset: Dataset, recipe: Recipe, how: dict[str, Any]) -> nn.Module:
    """Fine-tuned as the recipe says; the model itself where it says nothing."""
    settings = {name: getattr(recipe, name) for name in ("epochs", "seed", "lr", "weight_decay")}
    return tune(model, dataset, **settings, **how) if recipe.epochs else model
