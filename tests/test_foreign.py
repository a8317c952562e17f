"""Models that nobody here wrote: transformers' own classes, small, of random weights, and what people do to them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import compress, distill, files, inference, measure, models, prune, training
from kit.data import Dataset, Split
from tests.nets import same
from tests.strangers import By

tr: Any = pytest.importorskip("transformers")
tr.logging.set_verbosity_error()

VOCABULARY, LENGTH, CLASSES, WIDTH, WIDE = 60, 10, 3, 16, 24
TEXT = {"vocab_size": VOCABULARY, "num_labels": CLASSES, "initializer_range": 0.4}  # sharp: each head is seen to matter
IMAGE = {"num_channels": 1, "num_labels": CLASSES}
BERT = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": WIDE}
DISTIL = {"dim": WIDTH, "n_layers": 2, "n_heads": 4, "hidden_dim": WIDE, "max_position_embeddings": LENGTH}
GPT2 = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_inner": WIDE, "n_positions": LENGTH, "pad_token_id": 0}
LLAMA = {**BERT, "num_key_value_heads": 2, "max_position_embeddings": LENGTH, "pad_token_id": 0}
RESNET18 = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [8, 12, 16, 24], "embedding_size": 8}
CONVNEXT = {"patch_size": 4, "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_scale_init_value": 1.0}


def bert(**settings: Any) -> Any:
    return tr.BertForSequenceClassification(tr.BertConfig(**TEXT, **BERT, max_position_embeddings=LENGTH, **settings))


def gpt2() -> Any:
    return tr.GPT2ForSequenceClassification(tr.GPT2Config(**TEXT, **GPT2, bos_token_id=1, eos_token_id=2))


class T5(nn.Module):
    """The encoder alone, with the mean over the tokens and a head."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"d_model": WIDTH, "d_kv": 4, "d_ff": WIDE, "num_layers": 2, "num_heads": 4}
        config = tr.T5Config(vocab_size=VOCABULARY, **sizes, dropout_rate=0.0)
        self.encoder, self.head = tr.T5EncoderModel(config), nn.Linear(WIDTH, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state  # [n, length, width]
        there = attention_mask[..., None].to(hidden.dtype)
        return self.head((hidden * there).sum(1) / there.sum(1))


TEXTS: dict[str, Callable[[], Any]] = {
    "bert": bert,
    "distilbert": lambda: tr.DistilBertForSequenceClassification(tr.DistilBertConfig(**TEXT, **DISTIL)),
    "albert": lambda: tr.AlbertForSequenceClassification(
        tr.AlbertConfig(**TEXT, **BERT, embedding_size=8, max_position_embeddings=LENGTH)
    ),
    "gpt2": gpt2,
    "llama": lambda: tr.LlamaForSequenceClassification(tr.LlamaConfig(**TEXT, **LLAMA, bos_token_id=1, eos_token_id=2)),
    "t5": T5,
}
IMAGES: dict[str, Callable[[], Any]] = {
    "resnet18": lambda: tr.ResNetForImageClassification(tr.ResNetConfig(**IMAGE, **RESNET18)),
    "mobilenet": lambda: tr.MobileNetV2ForImageClassification(tr.MobileNetV2Config(**IMAGE, depth_multiplier=0.25)),
    "vit": lambda: tr.ViTForImageClassification(
        tr.ViTConfig(**IMAGE, **BERT, image_size=32, patch_size=8, initializer_range=0.4)
    ),
    "convnext": lambda: tr.ConvNextForImageClassification(
        tr.ConvNextConfig(**IMAGE, **CONVNEXT, image_size=32, initializer_range=0.4)
    ),
}
# By the end of its name: of each layer that loses outputs at ratio 0.5, how many stay.
KEPT: dict[str, dict[str, int]] = {
    "bert": {"query": 8, "key": 8, "value": 8, "intermediate.dense": 12, "pooler.dense": 8},
    "distilbert": {"q_lin": 8, "k_lin": 8, "v_lin": 8, "lin1": 12, "pre_classifier": 8},
    "albert": {"query": 8, "key": 8, "value": 8, "ffn": 12, "pooler": 8},
    "gpt2": {"c_attn": 24, "c_fc": 12},
    "llama": {"q_proj": 8, "k_proj": 4, "v_proj": 4, "gate_proj": 12, "up_proj": 12},  # one of two groups
    "t5": {"wi": 12},
    "vit": {"q_proj": 8, "k_proj": 8, "v_proj": 8, "fc1": 12},
    "convnext": {"0.layers.0.pwconv1": 16, "1.layers.0.pwconv1": 32, "1.layers.1.pwconv1": 32},
}


def built(make: Callable[[], Any], seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make().eval()
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)  # else nothing comes through fifty layers
    return model


def splits(inputs: Tensor, labels: Tensor) -> list[Split]:
    return [Split(x, y) for x, y in zip(inputs.split(40), labels.split(40), strict=True)]


class Ids:
    """Tokens of no language: only their number is asked for."""

    size = VOCABULARY


@pytest.fixture(scope="module")
def texts() -> Dataset:
    """Ids of 5 to 10 tokens."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(3, VOCABULARY, (120, LENGTH), generator=generator)
    lengths = torch.randint(5, LENGTH + 1, (120, 1), generator=generator)
    labels = torch.randint(CLASSES, (120,), generator=generator)
    ids = inputs.masked_fill(torch.arange(LENGTH) >= lengths, 0)
    tokens: Any = Ids()
    train, validation, test = splits(ids, labels)
    return Dataset("ids", train, validation, test, class_names=("a", "b", "c"), tokens=tokens)


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand((120, 1, 32, 32), generator=generator)
    labels = torch.randint(CLASSES, (120,), generator=generator)
    train, validation, test = splits(inputs, labels)
    return Dataset("pictures", train, validation, test, class_names=("a", "b", "c"))


@pytest.fixture(scope="module", params=[*TEXTS, *IMAGES])
def case(request: pytest.FixtureRequest, texts: Dataset, pictures: Dataset) -> tuple[str, Any, Dataset]:
    """A name, the model in evaluation mode, and data that fits."""
    name = request.param
    return name, built((TEXTS | IMAGES)[name]), texts if name in TEXTS else pictures


def asked(model: Any, inputs: Tensor) -> Tensor:
    """Logits by a call of one's own."""
    with torch.no_grad():
        if inputs.is_floating_point():
            return model(inputs).logits
        answer = model(inputs, attention_mask=(inputs != 0).long())
        return answer if isinstance(answer, Tensor) else answer.logits


def silenced(model: nn.Module, kept: dict[str, tuple[int, ...]]) -> nn.Module:
    """A copy whose layers answer 0 in all channels but those that are kept; by hooks, with no word of the kit."""
    silent = inference.copy_of(model)
    for name, stays in kept.items():
        layer: Any = silent.get_submodule(name)
        n = layer.weight.shape[1] if type(layer).__name__ == "Conv1D" else layer.weight.shape[0]
        factor = F.one_hot(torch.tensor(stays), n).sum(0)
        shaped = factor.view(-1, 1, 1) if isinstance(layer, nn.Conv2d) else factor
        layer.register_forward_hook(lambda _, __, output, shaped=shaped: output * shaped)
    return silent


def test_answers_come_out_of_objects_and_padding_is_masked(case: tuple[str, Any, Dataset]) -> None:
    _, model, dataset = case
    x = dataset.validation.inputs
    assert torch.allclose(training.predict(model, x), asked(model, x), atol=1e-6)


def test_one_epoch_is_the_ordinary_loop(case: tuple[str, Any, Dataset]) -> None:
    """A fit moves the weights by the gradient of the mean cross-entropy, as torch's own step does."""
    _, model, dataset = case
    fitted, own = inference.copy_of(model), inference.copy_of(model)
    for module in (*fitted.modules(), *own.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    training.fit(fitted, dataset, epochs=1, batch_size=40, lr=0.01, optimiser="sgd", seed=0)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    x, y = dataset.train.inputs[order], dataset.train.labels[order]
    stepper = torch.optim.SGD(own.train().parameters(), lr=0.01)
    with torch.random.fork_rng():
        answer = own(x) if x.is_floating_point() else own(x, attention_mask=(x != 0).long())
        F.cross_entropy(answer if isinstance(answer, Tensor) else answer.logits, y).backward()
    stepper.step()
    moved = [not torch.equal(a, b) for a, b in zip(fitted.parameters(), model.parameters(), strict=True)]
    assert any(moved)
    for one, other in zip(fitted.parameters(), own.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_sizes(case: tuple[str, Any, Dataset]) -> None:
    name, model, dataset = case
    profile = measure.profile(model, dataset.validation)
    assert profile.parameters == sum(each.numel() for each in model.parameters())
    assert profile.latency.value > 0
    length, d = LENGTH, WIDTH
    attention = 4 * length * length * d  # scores and sums
    head = 2 * d * CLASSES
    full = {
        "bert": 2 * (8 * length * d * d + 4 * length * d * WIDE + attention) + 2 * d * d + head,
        "gpt2": 2 * (8 * length * d * d + 4 * length * d * WIDE + attention) + length * head,
    }
    full["distilbert"] = full["bert"]
    if name in full:
        assert profile.flops == full[name]
    if name in ("resnet18", "mobilenet", "convnext"):
        assert profile.flops == counted(model, dataset.train.inputs[:1])


def counted(model: nn.Module, inputs: Tensor) -> int:
    """Two for each multiply-add of convolutions and linear layers, by their shapes."""
    total = []

    def count(layer: Any, _: Any, output: Tensor) -> None:
        total.append(2 * output.numel() * layer.weight[0].numel())

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    asked(model, inputs)
    for handle in handles:
        handle.remove()
    return sum(total)


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_weights_of_all_that_multiplies_can_go(case: tuple[str, Any, Dataset], importance: Any) -> None:
    """What is looked up, or added, stays; nothing else does, not GPT-2's transposed layers either."""
    _, model, dataset = case
    sparse = prune.weights(model, ratio=0.5, importance=importance, dataset=dataset)
    zeros = {name: int((each == 0).sum()) for name, each in sparse.named_parameters() if each.ndim >= 2}
    looked_up = {n for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    wanted = {name: each for name, each in model.named_parameters() if each.ndim >= 2}
    wanted = {name: each for name, each in wanted.items() if name.rpartition(".")[0] not in looked_up}
    wanted = {name: each for name, each in wanted.items() if name.endswith(".weight")}  # no tables of positions
    assert sum(zeros[name] for name in wanted) == round(sum(each.numel() for each in wanted.values()) / 2)
    assert torch.equal(training.predict(sparse, dataset.test.inputs), asked(sparse, dataset.test.inputs))


def test_channels(case: tuple[str, Any, Dataset], tmp_path: Path) -> None:
    """Heads, feed-forward units and filters go; what stays says why; the answers are those of silenced channels."""
    name, model, dataset = case
    thinned = prune.remove_channels(model, ratio=0.5, dataset=dataset)
    x = dataset.test.inputs
    wanted, got = asked(silenced(model, thinned.kept), x), asked(thinned.model, x)
    assert torch.allclose(got, wanted, atol=1e-5 * float(wanted.abs().max()) + 1e-6)
    assert not torch.allclose(got, asked(model, x), atol=1e-4)
    for layer, stays in thinned.kept.items():
        ends = [count for end, count in KEPT.get(name, {}).items() if layer.endswith(end)]
        assert len(stays) == (ends[0] if name in KEPT else model.get_submodule(layer).weight.shape[0] // 2)
    if name in KEPT:
        assert all(any(layer.endswith(end) for layer in thinned.kept) for end in KEPT[name])
    for _, reason in thinned.skipped:
        assert reason.startswith("Its channels cannot be followed through ")
        assert reason.count(". ") == 0
    assert measure.flops(thinned.model, x) < measure.flops(model, x)
    files.write(thinned.model, tmp_path / "thin.safetensors", sparse=False)
    back = prune.load_smaller(built((TEXTS | IMAGES)[name], seed=1), tmp_path / "thin.safetensors")
    assert same(back, thinned.model)
    assert torch.equal(asked(back, x), got)
    training.fit(back, dataset, epochs=1, batch_size=20, lr=1e-4, seed=0)


def test_counts_beside_layers_follow(texts: Dataset) -> None:
    """GPT-2 splits one weight by a number that it keeps, and says how many heads it has."""
    removal = prune.remove_channels(built(gpt2), ratio={"transformer.h.0.attn.c_attn": 0.5}, dataset=texts)
    first, second = (removal.model.get_submodule(f"transformer.h.{at}.attn") for at in (0, 1))
    assert [(each.split_size, each.num_heads, each.head_dim) for each in (first, second)] == [(8, 2, 4), (16, 4, 4)]


def test_heads_beside_a_norm_over_all_of_them_stay(texts: Dataset) -> None:
    """OLMo 2 normalises the queries of all heads together: no head can go, and one sentence says so."""
    config = tr.Olmo2Config(**TEXT, **LLAMA, bos_token_id=1, eos_token_id=2)
    model = built(lambda: tr.Olmo2ForSequenceClassification(config))
    thinned = prune.remove_channels(model, ratio=0.5, dataset=texts)
    assert {name.rpartition(".")[2] for name in thinned.kept} == {"gate_proj", "up_proj"}
    assert any("self_attn" in name for name, _ in thinned.skipped)


def test_compressed_in_every_way(case: tuple[str, Any, Dataset], tmp_path: Path) -> None:
    name, model, dataset = case
    x = dataset.test.inputs
    factored = compress.low_rank(model, rank=2)
    multiplied = [n for n, m in model.named_modules() if isinstance(m, prune.joints.LAYERS)]
    assert {*factored.ranks, *factored.kept} == set(multiplied)
    full = compress.low_rank(model, energy=1.0)
    assert torch.allclose(asked(full.model, x), asked(model, x), rtol=1e-3, atol=1e-4)
    files.write(factored.model, tmp_path / "low.safetensors", sparse=False)
    low = compress.load_low_rank(built((TEXTS | IMAGES)[name], seed=1), tmp_path / "low.safetensors")
    assert torch.equal(asked(low, x), asked(factored.model, x))
    for smaller in (compress.share(model, 8), compress.quantise(model, 4)):
        compress.write(smaller, tmp_path / "small.kit")
        back = built((TEXTS | IMAGES)[name], seed=1)
        compress.load_into(back, tmp_path / "small.kit")
        assert same(back, smaller)
    rounded = compress.quantise(model, 8, activations=8, dataset=dataset)
    assert {n for n, _ in rounded.named_buffers() if n.endswith("input_levels")} == {
        f"{n}.input_levels" for n in multiplied
    }
    exact = asked(model, x)
    quick = asked(compress.int8(model), x)
    assert float((quick - exact).norm() / exact.norm()) < 0.2
    if name in ("resnet18", "mobilenet"):  # batch normalisation
        assert torch.allclose(asked(compress.fold(model, dataset).model, x), exact, rtol=1e-3, atol=1e-4)
    else:
        with pytest.raises(ValueError, match=r"^model: \w+ has nothing to fold: "):
            compress.fold(model, dataset)
    files.write(model, tmp_path / "whole.safetensors", sparse=True)
    back = built((TEXTS | IMAGES)[name], seed=1)
    files.load_into(back, tmp_path / "whole.safetensors")
    assert torch.equal(asked(back, x), exact)


def test_it_teaches(case: tuple[str, Any, Dataset]) -> None:
    """Soft labels are the teacher's answers, and a student of another kind learns from them."""
    _, model, dataset = case
    x = dataset.train.inputs
    assert torch.allclose(distill.answers(model, x), asked(model, x), atol=1e-5)
    numbers = x[0].numel()
    student: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(numbers, CLASSES))
    student = models.BagOfWords(VOCABULARY, CLASSES, width=4) if dataset.tokens else student
    before = inference.copy_of(student)
    distill.fit(student, model, dataset.train, epochs=1)
    assert not same(student, before)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision(case: tuple[str, Any, Dataset], half: torch.dtype) -> None:
    _, model, dataset = case
    small, x = inference.copy_of(model).to(half), dataset.test.inputs
    answers = training.predict(small, x)
    assert answers.dtype == torch.float32
    exact = asked(model, x)
    assert float((answers - exact).norm() / exact.norm()) < 0.15
    assert measure.dense_bytes(small) < 0.6 * measure.dense_bytes(model)
    assert all(each.dtype == half for each in prune.weights(small, ratio=0.5).parameters())


def test_ids_that_do_not_fit(texts: Dataset) -> None:
    model = built(bert)
    with pytest.raises(ValueError, match=r"cannot take samples in float32: .* \(A model of token ids takes"):
        training.predict(model, texts.train.inputs.float())
    with pytest.raises(ValueError, match=r"tables of 60 and 10 and 2 rows, cannot take 10 ids a sample, from \d+ to 1"):
        training.predict(model, texts.train.inputs + 50)


@pytest.mark.parametrize("pad", [0, 1])  # as the kit's tokenisers have it, and as RoBERTa's own
def test_the_mask_follows_the_id_that_pads(texts: Dataset, pad: int) -> None:
    config = tr.RobertaConfig(**TEXT, **BERT, max_position_embeddings=LENGTH + 2, pad_token_id=pad)
    model = built(lambda: tr.RobertaForSequenceClassification(config))
    ids = texts.test.inputs.masked_fill(texts.test.inputs == 0, pad)
    with torch.no_grad():
        wanted = model(ids, attention_mask=(ids != pad).long()).logits
        assert not torch.allclose(wanted, model(ids).logits, atol=1e-3)  # where padding is read, too
    assert torch.equal(training.predict(model, ids), wanted)


def test_a_model_that_does_not_know_what_pads(texts: Dataset) -> None:
    model = built(gpt2)
    model.config.pad_token_id = None
    with pytest.raises(ValueError, match=r"several samples at once: .* \(Set model.config.pad_token_id to the id"):
        training.evaluate(model, texts.test)
    assert training.predict(model, texts.test.inputs[:1]).shape == (1, CLASSES)


def test_a_head_that_shares_the_embedding_stays(texts: Dataset) -> None:
    """GPT-2's language head is its table of tokens: it is looked up, too."""
    config = tr.GPT2Config(**TEXT, **GPT2, bos_token_id=1, eos_token_id=2)
    model = built(lambda: tr.GPT2LMHeadModel(config))
    assert model.lm_head.weight is model.transformer.wte.weight
    names = set(prune.prunable(model))
    assert len(names) == 8
    assert all(".h." in name for name in names)
    sparse: Any = prune.weights(model, ratio=0.5)
    assert sparse.lm_head.weight is sparse.transformer.wte.weight


class Adapter(nn.Module):
    """A low-rank branch beside a layer (Hu et al. 2021, arXiv:2106.09685)."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.base, self.down = layer, nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def adapted() -> Any:
    model = bert()
    for layer in model.bert.encoder.layer:
        layer.attention.self.query = Adapter(layer.attention.self.query)
        layer.intermediate.dense = Adapter(layer.intermediate.dense)
    return model


def frozen() -> Any:
    model = bert()
    model.bert.requires_grad_(False)
    return model


def checkpointed() -> Any:
    model = bert()
    model.gradient_checkpointing_enable()
    return model


class ByKeyword(nn.Module):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.inner = bert(**settings)

    def forward(self, *, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return self.inner(input_ids=input_ids, attention_mask=attention_mask)


class ByPosition(ByKeyword):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:  # type: ignore[override]
        return self.inner(input_ids, attention_mask, return_dict=False)  # a tuple


def recurrent() -> nn.Module:
    return By(
        lambda net, ids: net.head(F.relu(net.fc(net.rnn(net.table(ids))[0][:, -1]))),
        table=nn.Embedding(VOCABULARY, 16), rnn=nn.LSTM(16, 12, batch_first=True), fc=nn.Linear(12, 20),
        head=nn.Linear(20, CLASSES),
    )  # fmt: skip


WRAPPED: dict[str, tuple[Callable[[], Any], int]] = {  # and how many layers lose outputs
    "adapters": (adapted, 17),
    "a frozen encoder": (frozen, 9),
    "checkpoints": (checkpointed, 9),
    "by keyword": (ByKeyword, 9),
    "by position, a tuple": (ByPosition, 9),
    "tuples": (lambda: bert(return_dict=False), 9),
    "plain attention": (lambda: bert(attn_implementation="eager"), 9),
    "recurrent": (recurrent, 1),
}


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("kind", WRAPPED)
def test_what_people_do_to_models(texts: Dataset, kind: str) -> None:
    make, count = WRAPPED[kind]
    model, x = built(make), texts.test.inputs
    thinned = prune.remove_channels(model, ratio=0.5, dataset=texts)
    assert len(thinned.kept) == count
    wanted, got = training.predict(silenced(model, thinned.kept), x), training.predict(thinned.model, x)
    assert torch.allclose(got, wanted, atol=1e-5)
    assert not torch.allclose(got, training.predict(model, x), atol=1e-4)
    sparse = prune.weights(model, ratio=0.5, importance="taylor", dataset=texts)
    training.fit(sparse, texts, epochs=1, batch_size=20, seed=0)
    assert [p.requires_grad for p in sparse.parameters()] == [p.requires_grad for p in model.parameters()]


class Experts(nn.Module):
    """Each text goes to one of the experts, by its first token: a few texts do not reach them all."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.stem, self.head = nn.Embedding(VOCABULARY, 16), nn.Linear(16, 20), nn.Linear(8, CLASSES)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 8)) for _ in range(12))

    def forward(self, ids: Tensor) -> Tensor:
        read, out = F.relu(self.stem(self.table(ids).mean(1))), torch.zeros(len(ids), 8)
        for at, expert in enumerate(self.experts):
            rows = (ids[:, 0] % len(self.experts) == at).nonzero().flatten()
            if len(rows):
                out[rows] = expert(read[rows])
        return self.head(out)


def test_experts_that_a_few_samples_do_not_reach(texts: Dataset) -> None:
    """What all experts read cannot lose channels of some of them only: it stays, and no text is refused later."""
    model = built(Experts)
    thinned = prune.remove_channels(model, ratio=0.5, dataset=texts)
    assert "stem" not in thinned.kept
    assert any(".0" in name for name in thinned.kept)
    for split in (texts.train, texts.validation, texts.test):
        wanted = training.predict(silenced(model, thinned.kept), split.inputs)
        assert torch.allclose(training.predict(thinned.model, split.inputs), wanted, atol=1e-5)
