"""The objective in which all is chosen together: a student's structure, its training, and how its file is made.

One configuration is one network, really made, in these steps. The networks of a batch are trained and fine-tuned as
cohorts, which is what makes a trial cheap.

| step | what it does | chosen by |
|---|---|---|
| train | an MLP learns from labels and from a teacher | `width`, `temperature`, `alpha`, `lr` |
| low rank | the layer from the pixels becomes two thin ones, where that is smaller | `rank` |
| prune | the smallest weights of each layer become zeros | `ratio_in`, `ratio_out` |
| fine-tune | it learns on, the zeros held | `tune`, and again `temperature`, `alpha`, `lr` |
| share | each layer gets a codebook | `bits_in`, `bits_out` |
| fine-tune | the codebooks learn | `tune`, and again `temperature`, `alpha`, `lr` |
| write | Huffman codes, into the bytes of a file | |

What is measured is what was read back from these bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

from torch import Tensor, nn

from kit import checks, cohort, compress, distill, measure, models, prune, training
from kit.compress import split
from kit.compress.share import halved
from kit.data import Dataset, Split
from kit.distill.loss import check_labels
from kit.measure import Estimate
from kit.search import Goal, Goals
from kit.search.networks import drawn_seed
from kit.search.space import Config, Float, Int, Space, key

WIDEST, HIGHEST, MOST_PRUNED = 48, 32, 0.95  # hidden units, rank, share of a layer
FIRST, LAST = "layers.0", "layers.1.weight"  # the layer from the pixels, and the weight of the one to the classes

# A plain student: what a configuration leaves out is as it is here.
PLAIN: Config = {
    **{"width": 32, "temperature": 4.0, "alpha": 0.5, "lr": 1e-2},
    **{"rank": HIGHEST, "ratio_in": 0.0, "ratio_out": 0.0, "tune": 0, "bits_in": 6, "bits_out": 6},
}

OBJECTIVES = {"accuracy": Goal(maximise=True), "bytes": Goal(log=True)}  # of a study
CORNER = {"accuracy": 0.5, "bytes": 3000}  # where hypervolume is counted from: above, hardly any file is


def space() -> Space:
    """All that is chosen.

    `width` hidden units; `temperature` of the soft labels and their weight `alpha`; `lr`, the learning rate (Adam);
    `rank` of the layer from the pixels, which stays whole where two layers are not smaller; `ratio_in` and `ratio_out`,
    the share of the weights to prune in the layer from the pixels and in the one to the classes; `bits_in` and
    `bits_out`: 2^bits values in a layer's codebook; `tune`, epochs of fine-tuning after pruning, and as many after
    sharing.
    """
    return Space(
        {
            "width": Int(4, WIDEST, log=True),
            "temperature": Float(1, 16, log=True),
            "alpha": Float(0, 1),
            "lr": Float(1e-3, 0.1, log=True),
            "rank": Int(4, HIGHEST, log=True),
            "ratio_in": Float(0, MOST_PRUNED),
            "ratio_out": Float(0, MOST_PRUNED),
            "tune": Int(0, 6),
            "bits_in": Int(1, 6),
            "bits_out": Int(1, 6),
        }
    )


@dataclass(frozen=True)
class Made:
    """A network, made.

    Attributes:
        accuracy: share of right answers on the validation split; NaN where it diverged.
        data: its file; empty where it diverged.
    """

    accuracy: float
    data: bytes

    @property
    def values(self) -> dict[str, float]:
        """What a study is told."""
        return {"accuracy": self.accuracy, "bytes": len(self.data) or math.nan}


class Problem:
    """Maps configurations to {"accuracy": ..., "bytes": ...}, of networks that are made for it.

    The same configuration and seed give the same network (to rounding), whatever else is made with it, and what is made
    is remembered.

    Args:
        dataset: train teaches, validation measures; test is not read.
        teacher: any module, not changed; or its logits for the transfer set, [n, n_classes].
        transfer: samples to learn from, label -1 where one has none; None for those of `dataset.train`.
        epochs: of the training before pruning, 1 or more.
        seed: of first weights and orders; another seed makes other networks.
        batch_size: samples per step.

    Attributes:
        space: `space()`.
        goals: `OBJECTIVES`, as `Goals`.

    Raises:
        TypeError: an argument of another type.
        ValueError: one out of range, or teacher, samples and classes that do not fit together.
    """

    def __init__(
        self,
        dataset: Dataset,
        teacher: nn.Module | Tensor,
        *,
        transfer: Split | None = None,
        epochs: int = 15,
        seed: int = 0,
        batch_size: int = 64,
    ) -> None:
        training.check_dataset(dataset)
        if dataset.tokens is not None:
            raise ValueError(f"dataset must hold numbers, for the students are MLPs; got texts, {dataset.name}.")
        self.dataset, self.transfer = dataset, dataset.train if transfer is None else transfer
        training.check_split("transfer", self.transfer)
        if (shape := tuple(self.transfer.inputs.shape[1:])) != dataset.input_shape:
            raise ValueError(f"transfer has samples of shape {shape}; those of the data set are {dataset.input_shape}.")
        self.epochs, self.batch_size = checks.whole("epochs", epochs, 1), checks.whole("batch_size", batch_size, 1)
        self.seed, self.space, self.goals = checks.whole("seed", seed), space(), Goals(OBJECTIVES)
        logits, classes = distill.answers(teacher, self.transfer.inputs), dataset.n_classes  # [n, C]
        if logits.shape[1] != classes:
            raise ValueError(f"teacher answers {logits.shape[1]} classes, and the data set has {classes}.")
        check_labels("transfer's labels", self.transfer.labels, len(logits), classes)
        self._widest = models.MLP((self.transfer.inputs[0].numel(), WIDEST, classes))  # to which all are padded
        self._loop: Any = {"batch_size": self.batch_size, "teacher_logits": logits}
        self._made: dict[Any, Made] = {}

    def __call__(self, config: Mapping[str, Any]) -> dict[str, float]:
        """Accuracy on the validation split and length of the file, both NaN where the network diverged.

        Raises:
            TypeError, ValueError: a configuration that is not in `space()`; what it leaves out is that of `PLAIN`.
        """
        return self.batch([config])[0]

    def batch(self, configs: Sequence[Mapping[str, Any]], *, cancel: Event | None = None) -> list[dict[str, float]]:
        """The same for several, trained as one cohort; for `Study.run(batch=...)`.

        Raises:
            training.Cancelled: `cancel` was set; nothing of the batch is remembered.
        """
        if isinstance(configs, Mapping):
            raise TypeError("configs must be a list of configurations: call `run` with batch=1 or more.")
        return [made.values for made in self.made([(config, 0) for config in configs], cancel=cancel)]

    def make(self, config: Mapping[str, Any], seed: int = 0) -> tuple[nn.Module, bytes]:
        """The network as it would be shipped, and its file; seed 0 is that of the trial. ValueError if it diverged."""
        data = self._whole([(config, seed)])[0].data
        return self._read(data), data

    def retest(self, config: Mapping[str, Any], seeds: Sequence[int] = range(1, 9)) -> tuple[Estimate, Estimate]:
        """Accuracy and bytes of new networks of a configuration: means over seeds with Student's t intervals.

        A trial on the front may be there by luck. Networks of other seeds than 0 know nothing of it.

        Raises:
            ValueError: fewer than two seeds, one twice, or a network that diverged.
        """
        checks.instance("seeds", seeds, Iterable, "a list of whole numbers")
        seeds = tuple(checks.whole("each of seeds", seed) for seed in seeds)
        if len(seeds) < 2 or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds needs at least two, none twice, to show a spread; got {list(seeds)}.")
        made = [each.values for each in self._whole([(config, seed) for seed in seeds])]
        accuracy, size = (Estimate.from_values([each[name] for each in made]) for name in OBJECTIVES)
        return accuracy.share, size

    def words(self, config: Mapping[str, Any]) -> str:
        """The recipe of a configuration, in words."""
        chosen = self._checked(config)
        soft = f"{100 * chosen['alpha']:.0f} % of the loss from a teacher at temperature {chosen['temperature']:.2g}"
        thin = f"rank {chosen['rank']} in the first layer; " if self._is_thin(chosen) else ""
        pruned = f"{100 * chosen['ratio_in']:.0f} % and {100 * chosen['ratio_out']:.0f} % of the weights pruned"
        tuned = f"{chosen['tune'] or 'no'} epoch{'s' * (chosen['tune'] != 1)} of fine-tuning"
        shared = f"codebooks of {2 ** chosen['bits_in']} and {2 ** chosen['bits_out']} values"
        trained = f"{chosen['width']} hidden units; {soft}, learning rate {chosen['lr']:.2g}"
        return f"{trained}; {thin}{pruned}; {shared}; {tuned} after each"

    def made(self, wanted: Sequence[tuple[Mapping[str, Any], int]], *, cancel: Event | None = None) -> list[Made]:
        """Pairs of configuration and seed, made as one cohort where they are not remembered."""
        checked = [(self._checked(config), checks.whole("seed", seed)) for config, seed in wanted]
        keys = [(key(config), seed) for config, seed in checked]
        missing = {at: pair for at, pair in zip(keys, checked, strict=True) if at not in self._made}
        if missing:
            networks = self._trained(list(missing.values()), cancel)
            self._made.update(zip(missing, map(self._written, networks), strict=True))
        return [self._made[at] for at in keys]

    def _whole(self, wanted: Sequence[tuple[Mapping[str, Any], int]]) -> list[Made]:
        """As `made`; a ValueError where one diverged."""
        found = self.made(wanted)
        if lost := [pair for pair, made in zip(wanted, found, strict=True) if not made.data]:
            config, seed = lost[0]
            raise ValueError(f"config: the network of {dict(config)} with seed {seed} diverged; take a smaller lr.")
        return found

    def _checked(self, config: Mapping[str, Any]) -> Config:
        checks.instance("config", config, Mapping, "a dict of names and values")
        return self.space.check({**PLAIN, **config})

    def _is_thin(self, config: Config) -> bool:
        """Whether two layers are smaller than the one from the pixels, as `compress.low_rank` says."""
        inputs, width = self._widest.sizes[0], config["width"]
        return bool(config["rank"] * (inputs + width) < inputs * width)

    def _trained(self, pairs: Sequence[tuple[Config, int]], cancel: Event | None) -> list[nn.Module]:
        """Networks trained, made smaller, and fine-tuned."""
        members = [
            cohort.Member(
                drawn_seed(self.seed, config) + seed,
                order=self.seed + seed,
                **{name: config[name] for name in ("width", "lr", "temperature", "alpha")},
            )
            for config, seed in pairs
        ]
        networks = cohort.Cohort(self._widest, members)
        cohort.fit(networks, self.transfer, epochs=self.epochs, cancel=cancel, **self._loop)
        made = [self._smaller(network, config) for network, (config, _) in zip(networks.models(), pairs, strict=True)]
        self._tune(made, pairs, members, "zeros", cancel)
        made = [_shared(network, config) for network, (config, _) in zip(made, pairs, strict=True)]
        self._tune(made, pairs, members, "values", cancel)
        return made

    def _smaller(self, network: nn.Module, config: Config) -> nn.Module:
        """Of low rank, and pruned; as it was where it diverged."""
        if not _finite(network):
            return network
        if self._is_thin(config):
            network = compress.low_rank(network, rank={FIRST: config["rank"]}).model
        return prune.weights(network, ratio=_by_weight(network, config["ratio_in"], config["ratio_out"]))

    def _tune(
        self,
        networks: Sequence[nn.Module],
        pairs: Sequence[tuple[Config, int]],
        members: Sequence[cohort.Member],
        hold: cohort.Hold,
        cancel: Event | None,
    ) -> None:
        """Fine-tune networks in place: those with a thin layer as one cohort, and the others as one."""
        (inputs, width, _), (first, last) = self._widest.sizes, self._widest.layers
        thin = nn.Sequential(nn.Flatten(), *split(first, min(HIGHEST, inputs, width)), nn.ReLU(), last)
        for template in (self._widest, thin):
            kind = [isinstance(network.get_submodule(FIRST), compress.LowRank) for network in networks]
            alike = [at for at, is_thin in enumerate(kind) if is_thin == (template is thin) and pairs[at][0]["tune"]]
            if alike:
                stops = _Stops([networks[at] for at in alike], [pairs[at][0]["tune"] for at in alike])
                padded = cohort.Cohort(template, [replace(members[at], width=None) for at in alike])
                stops.fill(padded)
                how: Any = {"epochs": max(stops.epochs), "hold": hold, "callbacks": [stops], "cancel": cancel}
                cohort.fit(padded, self.transfer, **how, **self._loop)

    def _written(self, network: nn.Module) -> Made:
        if not _finite(network):
            return Made(math.nan, b"")
        data = compress.encode({name: halved(each) for name, each in network.state_dict().items()}).data
        return Made(measure.accuracy(self._read(data), self.dataset.validation).value, data)

    def _read(self, data: bytes) -> nn.Module:
        state = compress.decode(data)
        classes, width = state[LAST].shape
        network = models.MLP((self.transfer.inputs[0].numel(), width, classes))
        if (first := state.get(f"{FIRST}.0.weight")) is not None:
            network.layers[0] = split(network.layers[0], len(first))
        network.load_state_dict(state)
        return network.eval()


def _shared(network: nn.Module, config: Config) -> nn.Module:
    """With codebooks; as it was where it diverged."""
    if not _finite(network):
        return network
    bits = _by_weight(network, config["bits_in"], config["bits_out"])
    clusters = {name: min(2**each, network.get_parameter(name).numel()) for name, each in bits.items()}
    return compress.share(network, clusters, biases=True)


def _by_weight(network: nn.Module, first: Any, last: Any) -> dict[str, Any]:
    """One value for each weight of the layer from the pixels, and one for that of the layer to the classes."""
    return {name: last if name == LAST else first for name in prune.prunable(network)}


def _finite(network: nn.Module) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in network.parameters())


class _Stops(training.Callback):
    """Networks, padded with zeros into a cohort, and each of them taken out again after its own number of epochs.

    All are padded to one size, whatever the batch: so the same numbers are added, in the same order.
    """

    def __init__(self, networks: Sequence[nn.Module], epochs: Sequence[int]) -> None:
        self.networks, self.epochs = networks, epochs

    def fill(self, padded: cohort.Cohort) -> None:
        padded.weights.zero_()
        for at in range(len(padded)):
            for corner, parameter in self._pairs(padded, at):
                corner.copy_(parameter)

    def on_epoch_end(self, progress: training.Progress) -> None:
        """Take out those that are ready."""
        for at, epochs in enumerate(self.epochs):
            for corner, parameter in self._pairs(progress.model, at) if epochs == progress.epoch + 1 else ():
                parameter.copy_(corner)

    def _pairs(self, padded: Any, at: int) -> Iterator[tuple[Tensor, Tensor]]:
        for block, parameter in zip(padded.blocks().values(), self.networks[at].parameters(), strict=True):
            yield block[at][tuple(map(slice, parameter.shape))], parameter.detach()
