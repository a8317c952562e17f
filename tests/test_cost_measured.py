"""Cost on paper against what the kit measures: its own small networks, transformers' classes, torch-made files."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit import cost, files, measure, models
from kit.cost import Storage, Transformer
from kit.cost import machine as room

IMAGE = torch.zeros(1, 1, 8, 8)


def test_a_small_transformer_costs_what_the_paper_says() -> None:
    model = models.Transformer(200, 24, n_classes=5, width=32, heads=4, layers=3, hidden=48)
    paper = Transformer("ours", 3, 32, 4, 48, 200, 24, 24, decoder=False, head="none", classes=5)
    assert measure.parameters(model) == paper.parameters
    ids = torch.randint(1, 200, (1, 24), generator=torch.Generator().manual_seed(0))
    assert measure.flops(model, ids) == paper.flops(24)
    assert measure.dense_bytes(model) == paper.bytes(Storage(32))


@pytest.mark.parametrize(
    ("model", "paper"),
    [
        (
            models.ConvNet(),
            cost.ConvNet(
                "ours",
                (
                    cost.Layer(1, 32, 3, 8, bias=True, norm=False),
                    cost.Layer(32, 64, 3, 8, bias=True, norm=False),
                    *cost.perceptron((64 * 16, 128, 10)),
                ),
                64,
            ),
        ),
        (
            models.ResNet(widths=(8, 12), blocks=2),
            cost.resnet("ours", (2, 2), (8, 12), channels=1, pixels=8, classes=10, stem=3),
        ),
    ],
)
def test_small_convolutional_networks_cost_what_the_paper_says(model: nn.Module, paper: cost.ConvNet) -> None:
    assert measure.parameters(model) == paper.parameters
    assert measure.flops(model, IMAGE) == paper.flops()


def test_lenet_5_costs_what_the_paper_says() -> None:
    assert measure.parameters(models.LeNet5()) == cost.LENET_5.parameters
    assert measure.flops(models.LeNet5(), torch.zeros(1, 1, 28, 28)) == cost.LENET_5.flops()


class Logits(nn.Module):
    """A class of transformers as the kit calls models."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The first tensor of what it answers: [n, ...]."""
        return self.model(x)[0].flatten(1)


def counted(model: Any, inputs: Tensor) -> tuple[int, int]:
    return measure.parameters(model), measure.flops(Logits(model), inputs)


def test_bert_costs_what_the_paper_says() -> None:
    hub = pytest.importorskip("transformers")
    config = hub.BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40,
        max_position_embeddings=20,
    )  # fmt: skip
    paper = Transformer(*("bert", 2, 32, 4, 40, 100, 20, 20), decoder=False, segments=2, head="none", pooler=True)
    parameters, _ = counted(hub.BertModel(config), ids := torch.arange(20)[None])
    pooled = hub.BertForSequenceClassification(config)  # its logits hang on the pooler
    classes = Transformer(
        *("bert", 2, 32, 4, 40, 100, 20, 20), decoder=False, segments=2, head="none", pooler=True, classes=2
    )
    assert parameters == paper.parameters
    assert counted(pooled, ids) == (classes.parameters, classes.flops(20))


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_decoders_cost_what_the_paper_says(kv_heads: int) -> None:
    hub = pytest.importorskip("transformers")
    ids, hidden_pairs = torch.arange(20)[None], 20 * 19 // 2  # that are computed there, and then hidden
    gpt = hub.GPT2LMHeadModel(
        hub.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=20, use_cache=False)
    )
    llama = hub.LlamaForCausalLM(
        hub.LlamaConfig(
            vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40,
            num_key_value_heads=kv_heads, use_cache=False, tie_word_embeddings=False,
        )
    )  # fmt: skip
    for model, paper in (
        (gpt, Transformer("gpt", 2, 32, 4, 128, 100, 20, 20)),
        (
            llama,
            Transformer(
                *("llama", 2, 32, 4, 40, 100, 20), kv_heads=kv_heads, gated=True, biases=False, rms=True, head="own"
            ),
        ),
    ):
        parameters, flops = counted(model, ids)
        assert parameters == paper.parameters
        assert flops == paper.flops(20, logits=20) + 4 * 2 * 32 * hidden_pairs


def test_residual_and_vision_networks_cost_what_the_paper_says() -> None:
    hub = pytest.importorskip("transformers")
    residual = hub.ResNetForImageClassification(
        hub.ResNetConfig(
            num_channels=3,
            embedding_size=8,
            hidden_sizes=[16, 24],
            depths=[2, 1],
            layer_type="bottleneck",
            num_labels=7,
        )
    ).eval()
    # There the first stage is wide: its 1x1 convolutions take the stem's channels, and a quarter is in the middle.
    paper = cost.resnet("ours", (2, 1), (4, 6), bottleneck=True, pixels=32, classes=7)
    stem = cost.Layer(3, 8, 7, 16, 2)
    first = [cost.Layer(8, 4, 1, 8), *paper.layers[2:4], cost.Layer(8, 16, 1, 8)]
    wide = cost.ConvNet("theirs", (stem, *first, *paper.layers[5:]), 3 * 32 * 32)
    assert counted(residual, torch.zeros(1, 3, 32, 32)) == (wide.parameters, wide.flops())
    vision = hub.ViTForImageClassification(
        hub.ViTConfig(
            image_size=16, patch_size=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=40, num_labels=7,
        )
    ).eval()  # fmt: skip
    eye = Transformer(*("vit", 2, 32, 4, 40, 0, 17, 17), decoder=False, head="none", classes=7, patch=48)
    assert counted(vision, torch.zeros(1, 3, 16, 16)) == (eye.parameters, eye.flops(17))


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99])
def test_a_sparse_file_is_as_long_as_the_paper_says(sparsity: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(1000, 1000, generator=generator) + 1
    weights[torch.rand(weights.shape, generator=generator) < sparsity] = 0
    written = len(files.encode({"weight": weights}, sparse=True))
    assert written == pytest.approx(Storage(32, pattern="anywhere", sparsity=sparsity).bytes(1e6), rel=0.02)


def test_this_machine_is_measured_once_with_intervals_and_leaves_torch_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    monkeypatch.setattr(room, "SIDE", 64)
    monkeypatch.setattr(room, "COPIED", 2**16)
    room.here.cache_clear()
    machine = cost.here()
    assert machine is cost.here() and "thread" in machine.source
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    assert machine.interval is not None
    slow, fast = machine.interval
    assert all(slow.flops[bits] <= rate <= fast.flops[bits] for bits, rate in machine.flops.items())
    assert slow.bandwidth <= machine.bandwidth <= fast.bandwidth
    assert set(machine.flops) == {8, 16, 32} and machine.memory > 2**28
    step = cost.bound(cost.GPT2.decode(), machine)
    assert step.low <= step.seconds <= step.high
    room.here.cache_clear()


def test_a_rate_is_that_of_the_fastest_run_down_to_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lasts = [50.0, 0.5, *range(1, 16)]  # seconds; the two to warm up do not count
    clock = iter([at for last in lasts for work in (1, 10) for at in (0.0, work * last)])
    monkeypatch.setattr(room.time, "perf_counter", lambda: next(clock))
    done = list[str]()
    (usual, fastest), slower = room._rates([(80.0, lambda: done.append("one")), (80.0, lambda: done.append("other"))])
    assert done == ["one", "other"] * 17
    assert (usual, fastest) == (pytest.approx(80 / 12), 80.0)  # Conover: the 12th of 15 is the end of the median's
    assert slower == (pytest.approx(8 / 12), 8.0)
