"""A transformer on sentences of docstrings, beside a bag of words; and what makes it smaller.

Two tasks on the same sentences. Which library is one from? There the words tell nearly all, and the transformer
does worse than a bag of words with logistic regression. Was it written so, or do its two parts stand in the other order
(as in Lan et al. 2020, arXiv:1909.11942, section 3.1)? There the bag of words can only guess; the strong rival counts
pairs of neighbouring words, too, and where a text begins and ends.

Settings were chosen on the validation split; accuracies here are of the test split, which is read for this alone.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn

from kit import cohort, compress, cores, data, distill, measure, models, prune, training
from kit.data import Dataset, Split
from kit.data.text import words_of
from kit.measure import Estimate
from tests.benchmarks.registry import Say
from tests.benchmarks.rows import Row, Target

SEEDS, WORKERS = 5, 2
SECONDS = 30  # of the processor, for one training
SHARES = {"validation": 0.3, "test": 0.2}
FIT: Any = {"epochs": 8, "lr": 3e-3, "schedule": "one-cycle"}
SMALL = {"width": 32, "heads": 2, "layers": 1, "hidden": 64}
SMALL_FIT: Any = {"epochs": 10, "lr": 5e-3, "schedule": "one-cycle"}
BAG = 16  # numbers a token
BAG_FIT: Any = {"epochs": 15, "lr": 1e-2}
LOSS = 2.0  # points, upper 95 % bound
BATCH, RUNS = 32, 60  # of a latency

# What is lost of the accuracy: the words for it.
VERSIONS = {
    "heads": "half of the heads gone, tuned",
    "units": "half of the feed-forward units gone, tuned",
    "weights": "80 % of the weights pruned, tuned",
    "low_rank": "80 % of its numbers left by low rank, tuned",
    "grid8": "weights and embeddings in 8 bits",
    "grid4": "weights and embeddings in 4 bits",
    "int8": "linear layers in int8",
    "small": "one layer, 2 heads, half as wide, distilled",
    "bag": "a bag of words, distilled",
}
FILES = {"weights": 1.2, "grid8": 3.5, "grid4": 7.0, "small": 2.5, "bag": 6.0}  # times smaller at least
FASTER = {"heads": 1.1, "units": 1.05, "low_rank": 1.1, "int8": 1.0, "small": 5.0, "bag": 30.0}


def benchmark(say: Say) -> Iterator[Row]:
    """Time and accuracy of both tasks against the rivals; accuracy, bytes and latency of smaller versions."""
    texts, labels, names = data.docstring_texts()
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as workers:
        found = list(workers.map(partial(_measured, texts, labels, names), range(SEEDS)))
    of = {name: [each[name] for each in found] for name in found[0]}
    for name, values in of.items():
        mean = Estimate.from_values(values)
        say(f"{name}: {mean.value:,.2f} ({mean.low:,.2f} to {mean.high:,.2f}), {SEEDS} networks and splits")
    what = f"processor seconds to train a transformer on {len(texts) // 2:,} docstrings / limit"
    yield Row.of("text.seconds", what, _mean(of["library.seconds"]), SECONDS, "s", Target("at most", 1))
    what = "the same / tf-idf and logistic regression"
    yield Row.of(
        "text.seconds.words",
        what,
        _mean(of["library.seconds"]),
        _mean(of["library.words.seconds"]),
        "s",
        Target("at most", 100),
    )
    for task, asked in (("library", "which library"), ("order", "in which order")):
        for rival, words, most in (
            ("words", "bag of words", {"library": 1.0, "order": 0.7}[task]),
            ("pairs", "words, pairs and ends", 1.0),
        ):
            ours, theirs = of[f"{task}.transformer"], of[f"{task}.{rival}"]
            gain = Estimate.from_pairs(ours, theirs)
            say(f"{asked}: {gain.value:+.1f} points ({gain.low:+.1f} to {gain.high:+.1f}) over {words}")
            what = f"{asked}? errors of a transformer / {words}, logistic regression"
            errors = 100 - _mean(ours), 100 - _mean(theirs)
            yield Row.of(f"text.{task}.{rival}", what, *errors, "%", Target("at most", most))
    for name, words in VERSIONS.items():
        loss = Estimate.from_pairs(of["library.transformer"], of[f"library.{name}"])
        say(f"{words}: loses {loss.value:+.1f} points ({loss.low:+.1f} to {loss.high:+.1f})")
        what = f"{words}: points lost, upper 95 % bound / limit"
        yield Row.of(f"text.{name}.loss", what, loss.high, LOSS, "points", Target("at most", 1))
    for name, least in FILES.items():
        what, sizes = f"{VERSIONS[name]}: file", (_mean(of[f"bytes.{name}"]), _mean(of["bytes.transformer"]))
        yield Row.of(f"text.{name}.bytes", what, *sizes, "bytes", Target("at least", least))
    yield from _latencies()


def _measured(texts: Sequence[str], labels: np.ndarray, names: Sequence[str], seed: int) -> dict[str, float]:
    """Accuracies in per cent, bytes of files and seconds, of one split and the networks of one seed."""
    found: dict[str, float] = {}
    with cores.one_thread():
        order = _task(*_parts_exchanged(texts, seed), ("as written", "exchanged"), seed)
        for task, (dataset, raw) in (("library", _task(texts, labels, names, seed)), ("order", order)):
            for rival, longest in (("words", 1), ("pairs", 2)):
                began = time.process_time()
                found[f"{task}.{rival}"] = _logistic_regression(raw, dataset, longest)
                found[f"{task}.{rival}.seconds"] = time.process_time() - began
            net, began = _transformer(dataset, seed=seed, hidden=128), time.process_time()
            training.fit(net, dataset, seed=seed, **FIT)
            found[f"{task}.seconds"] = time.process_time() - began
            found[f"{task}.transformer"] = _right(net, dataset)
            small = _transformer(dataset, seed=seed, **SMALL)
            distill.fit(small, net, dataset.train, temperature=2, seed=seed, **SMALL_FIT)
            found[f"{task}.small"] = _right(small, dataset)
            if task == "library":
                for name, model in {"transformer": net, "small": small, **_versions(net, dataset, seed)}.items():
                    found[f"library.{name}"] = _right(model, dataset)
                    if name in FILES or name == "transformer":
                        found[f"bytes.{name}"] = compress.file_bytes(model)
    return found


def _versions(net: nn.Module, dataset: Dataset, seed: int) -> dict[str, nn.Module]:
    """What `VERSIONS` names, but the small transformer; and rivals that were not taught, by their names."""
    found = _smaller(net, dataset)
    found["weights"] = prune.weights(net, ratio=0.8)
    for name in ("heads", "units", "low_rank", "weights"):
        found[name] = prune.fine_tune(found[name], dataset, epochs=2, lr=5e-4, seed=seed)
    found |= {f"grid{bits}": compress.quantise(net, bits=bits) for bits in (8, 4)}
    distill.fit(found["bag"], net, dataset.train, temperature=2, seed=seed, **BAG_FIT)
    found["bag, hard labels"] = models.BagOfWords(cohort.n_inputs(dataset), dataset.n_classes, BAG, seed=seed)
    found["small, hard labels"] = _transformer(dataset, seed=seed, **SMALL)
    training.fit(found["bag, hard labels"], dataset, seed=seed, **BAG_FIT)
    training.fit(found["small, hard labels"], dataset, seed=seed, **SMALL_FIT)
    return found


def _smaller(net: nn.Module, dataset: Dataset) -> dict[str, nn.Module]:
    """Other shapes of the network, their weights as they come."""
    groups = prune.channel_groups(net, dataset)
    half = {kind: {name: 0.5 for name in groups if kind in name} for kind in ("attention", "fc1")}
    return {
        "heads": prune.channels(net, ratio=half["attention"], dataset=dataset),
        "units": prune.channels(net, ratio=half["fc1"], dataset=dataset),
        "low_rank": compress.low_rank(net, budget=0.8).model,
        "int8": compress.int8(net),
        "bag": models.BagOfWords(cohort.n_inputs(dataset), dataset.n_classes, BAG),
    }


def _latencies() -> Iterator[Row]:
    """Weights are untrained: a product takes as long with any others."""
    dataset = data.docstrings()
    net = _transformer(dataset, hidden=128)
    smaller = {**_smaller(net, dataset), "small": _transformer(dataset, **SMALL)}
    with cores.one_thread():
        inputs = dataset.validation.inputs
        whole, *each = measure.latencies([net, *smaller.values()], inputs, batch_size=BATCH, runs=RUNS)
    for name, took in zip(smaller, each, strict=True):
        what = f"{VERSIONS[name]}: latency, batch {BATCH}"
        yield Row.of(f"text.{name}.latency", what, took.value, whole.value, "ms", Target("at least", FASTER[name]))


def _task(
    texts: Sequence[str], labels: np.ndarray, names: Sequence[str], seed: int
) -> tuple[Dataset, dict[str, list[str]]]:
    """The data set, and the texts of its train and test split as they are: the rivals have all of their words."""
    how: Any = {"class_names": names, "seed": seed, **SHARES}
    places = data.from_texts(texts, labels, tokens=_Places(texts), length=1, **how)

    def raw(split: Split) -> list[str]:
        return [texts[at] for at in split.inputs[:, 0]]

    return data.from_texts(texts, labels, **how), {"train": raw(places.train), "test": raw(places.test)}


class _Places:
    """Not words, but the number of a text."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.size, self._texts = len(texts), texts
        self._place = {text: at for at, text in enumerate(texts)}

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        return torch.tensor([[self._place[text]] for text in texts])

    def decode(self, ids: Tensor) -> str:
        return self._texts[int(ids[0])]


def _parts_exchanged(texts: Iterable[str], seed: int) -> tuple[list[str], np.ndarray]:
    """Texts of six words or more, without punctuation; in half of them the parts around a cut exchanged."""
    rng = np.random.default_rng(seed)
    longer = [words for text in texts if len(words := [each for each in words_of(text) if each.isalpha()]) >= 6]
    labels = rng.integers(0, 2, len(longer))
    cuts = [int(rng.integers(2, len(each) - 1)) * int(label) for each, label in zip(longer, labels, strict=True)]
    made = {" ".join(each[cut:] + each[:cut]): label for each, cut, label in zip(longer, cuts, labels, strict=True)}
    return list(made), np.array(list(made.values()))


def _logistic_regression(raw: dict[str, list[str]], dataset: Dataset, longest: int) -> float:
    """Accuracy in per cent of tf-idf and logistic regression, of words alone or of pairs and ends as well."""

    def words(text: str) -> list[str]:
        return words_of(text) if longest == 1 else ["<s>", *words_of(text), "</s>"]

    counts = TfidfVectorizer(tokenizer=words, token_pattern=None, ngram_range=(1, longest), sublinear_tf=True)
    model = make_pipeline(counts, LogisticRegression(C=10 if longest > 1 else 3, max_iter=1000))
    model.fit(raw["train"], dataset.train.labels.numpy())
    return 100 * float(model.score(raw["test"], dataset.test.labels.numpy()))


def _transformer(dataset: Dataset, **sizes: int) -> models.Transformer:
    (length,) = dataset.input_shape
    return models.Transformer(cohort.n_inputs(dataset), length, dataset.n_classes, **sizes)


def _right(net: nn.Module, dataset: Dataset) -> float:
    return 100 * measure.final_test(net, dataset).value


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
