"""Cost on paper against published figures, against counts by hand, and refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit import cost
from kit.cost import Hardware, Layer, Step, Storage, Transformer

SMALL = Transformer("small", layers=3, width=8, heads=2, hidden=20, vocabulary=50, context=16, positions=16)
PLAIN = Hardware("plain", {32: 1e12, 16: 2e12}, bandwidth=1e10, memory=1e9)


@pytest.mark.parametrize(
    ("network", "parameters", "source"),
    [
        (cost.MINILM, 22.7e6, "the package's card"),
        (cost.BERT_BASE, 110e6, "Devlin et al. 2019, section 3"),
        (cost.VIT_B, 86e6, "Dosovitskiy et al. 2021, table 1"),
        (cost.GPT2, 124e6, "github.com/openai/gpt-2"),
        (cost.GPT2_XL, 1558e6, "github.com/openai/gpt-2"),
        (cost.OPT_13B, 13e9, "Zhang et al. 2022, table 1"),
        (cost.LLAMA_7B, 6.7e9, "Touvron et al. 2023, table 2"),
        (cost.LLAMA2_70B, 70e9, "Touvron et al. 2023, table 1"),
        (cost.GPT3, 175e9, "Brown et al. 2020, table 2.1"),
        (cost.RESNET_18, 11.7e6, "torchvision"),
        (cost.RESNET_50, 25.6e6, "torchvision"),
        (cost.MOBILENET, 4.2e6, "Howard et al. 2017, table 6"),
        (cost.LENET_5, 431e3, "Han et al. 2015, table 3"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_parameters_are_the_published_ones(
    network: cost.Transformer | cost.ConvNet, parameters: float, source: str
) -> None:
    assert network.parameters == sum(network.parts.values()) == pytest.approx(parameters, rel=0.02)
    assert network.source and network.parameters >= network.matrices > 0


def test_other_figures_are_the_published_ones() -> None:
    assert cost.RESNET_50.macs() == pytest.approx(4.1e9, rel=0.02)  # 224 x 224; torchvision: 4.09
    assert cost.RESNET_18.macs() == pytest.approx(1.8e9, rel=0.02)  # He et al. 2016, table 1
    assert cost.MOBILENET.macs() == pytest.approx(569e6, rel=0.02)  # Howard et al. 2017, table 6
    assert cost.VIT_B.flops(197) == pytest.approx(2 * 17.5e9, rel=0.02)  # DeiT-B; Liu et al. 2021 (Swin), table 1
    assert cost.GPT3.bytes() == pytest.approx(350e9, rel=0.02)  # two bytes a parameter
    assert cost.training(cost.GPT3, 300e9).flops == pytest.approx(3.14e23, rel=0.02)  # Brown et al. 2020, table D.1
    assert cost.training(cost.GPT2_XL).bytes == pytest.approx(24e9, rel=0.05)  # Rajbhandari et al. 2020, section 3.1
    assert cost.OPT_13B.cache(1) == pytest.approx(800 * 2**10, rel=0.02)  # Kwon et al. 2023, section 3
    assert (
        cost.LLAMA_7B.cache(2048) == 2 * 32 * 4096 * 2048 * 2 == 2**30
    )  # keys and values, layers, width, tokens, bytes


def test_grouped_queries_shrink_the_cache_and_nothing_else_of_it() -> None:
    whole = replace(cost.LLAMA2_70B, kv_heads=None)
    assert whole.cache(4096) == 8 * cost.LLAMA2_70B.cache(4096)
    assert whole.flops(1, cached=99) > cost.LLAMA2_70B.flops(1, cached=99)
    assert cost.BERT_BASE.cache(512) == 0  # an encoder keeps none


def test_tokens_one_by_one_cost_as_much_as_all_at_once() -> None:
    steps = sum(SMALL.flops(1, cached=at, logits=0) for at in range(16))
    assert SMALL.flops(16, logits=0) == steps
    assert SMALL.flops(16, logits=16) - SMALL.flops(16) == 2 * 15 * 50 * 8


def test_a_matrix_of_low_rank_has_two_thin_factors() -> None:
    low = replace(SMALL, rank=0.25)
    assert low.matrices == 3 * 2 * (4 * (8 + 8) + 2 * (8 + 20))  # of rank 2
    assert SMALL.parts["norms"] == low.parts["norms"] and low.flops(1) < SMALL.flops(1)
    thin = cost.LENET_5.factored(0.5)
    assert thin.layers[2:4] == (
        Layer(20, 25, 5, 8, bias=False, norm=False),
        Layer(25, 50, 1, 8, bias=True, norm=False),
    )
    assert cost.MOBILENET.factored(0.5).parts["depthwise"] == cost.MOBILENET.parts["depthwise"]


def test_fewer_channels_are_fewer_on_both_sides() -> None:
    thin = cost.MOBILENET.thinner(0.5)
    assert thin.parameters == pytest.approx(1.3e6, rel=0.03)  # Howard et al. 2017, table 6: 0.5 MobileNet-224
    assert thin.macs() == pytest.approx(149e6, rel=0.02)
    assert (thin.layers[0].inputs, thin.layers[-1].outputs) == (3, 1000)


def test_bytes_follow_bits_scales_and_zeros() -> None:
    assert Storage(4).bytes(80) == 40
    assert Storage(4, group=128).bytes(1280) == 640 + 20  # a scale of two bytes for each 128
    assert Storage(16, pattern="2:4", sparsity=0.5).bytes(16) == 16 + 2  # 8 kept, 2 bits each for their places
    assert Storage(16, pattern="anywhere", sparsity=0.1).bytes(100) == 200  # an index would cost more than it saves
    assert Storage(16, pattern="anywhere", sparsity=0.9).bytes(1000) == pytest.approx(100 * 3)
    assert cost.LLAMA_7B.bytes(Storage(4)) == pytest.approx(cost.LLAMA_7B.bytes() / 4, rel=0.001)
    zeros = Storage(16, pattern="anywhere", sparsity=0.9)
    tables = cost.BERT_BASE.parts["embeddings"] * 2  # bytes: they have no zeros
    assert tables < cost.BERT_BASE.bytes(zeros) < 0.5 * cost.BERT_BASE.bytes()
    assert [Storage(bits).arithmetic for bits in (32, 16, 8, 4, 3.7)] == [32, 16, 8, 16, 16]


def test_a_step_moves_the_weights_once_and_the_cache_of_each_text() -> None:
    one, four = SMALL.decode(1, 10), SMALL.decode(4, 10)
    assert four.bytes - one.bytes == 3 * SMALL.cache(10) and four.flops == 4 * one.flops
    assert one.bytes == SMALL.bytes() - 2 * 16 * 8 + SMALL.cache(10)  # without the table of positions
    own = replace(SMALL, head="own")
    assert own.decode(1, 10).bytes == one.bytes  # its head is read, its table of words is not
    assert SMALL.prefill(2, 10).flops == 2 * SMALL.flops(10)


def test_the_roofline_takes_the_longer_of_both() -> None:
    slow = cost.bound(Step(flops=1e12, bytes=1e9, bits=16), PLAIN)
    assert (slow.compute, slow.read, slow.seconds, slow.by) == (0.5, 0.1, 0.5, "compute")
    assert (slow.low, slow.high) == (0.5, 0.5)
    assert cost.bound(Step(1e12, 1e10, 32), PLAIN).by == "compute"
    assert cost.bound(Step(1e12, 1e11, 16), PLAIN).by == "bandwidth"
    ends = replace(PLAIN, bandwidth=5e9), replace(PLAIN, bandwidth=2e10)
    measured = cost.bound(Step(1e9, 1e10, 16), replace(PLAIN, interval=ends))
    assert (measured.low, measured.seconds, measured.high) == (0.5, 1.0, 2.0)
    assert PLAIN.rate(8) == 2e12  # no 8-bit products: those of 16 bits hold them


def test_decoding_turns_at_the_batch_that_the_roofline_says() -> None:
    batch = cost.LLAMA_7B.turning_batch(cost.H100, context=64)
    assert batch is not None and batch > 100
    for texts, by in ((int(batch) - 1, "bandwidth"), (int(batch) + 2, "compute")):
        assert cost.bound(cost.LLAMA_7B.decode(texts, 64), cost.H100).by == by
    assert cost.LLAMA_7B.turning_batch(cost.H100, context=2048) is None  # each text brings a cache to read
    assert cost.bound(cost.LLAMA_7B.decode(10**6, 2048), cost.H100).by == "bandwidth"


def test_published_measurements_lie_over_their_bound() -> None:
    """Llama-2-7B in 4 bits by groups of 128, phones of 2024: github.com/pytorch/executorch, examples/models/llama2."""
    phone = replace(PLAIN, bandwidth=76.8e9)  # LPDDR5X-9600 of 64 bits, as in the OnePlus 12
    step = cost.bound(cost.LLAMA_7B.decode(1, 128, Storage(4, group=128)), phone)
    assert step.by == "bandwidth" and 0.25 / 11.55 < step.seconds < 1 / 11.55  # 11.55 tokens a second were measured


# -- what each compression buys ----------------------------------------------------------------------------------------


def bought(hardware: Hardware, network: Any = cost.LLAMA_7B, **how: Any) -> dict[str, cost.Bought]:
    return {each.name: each for each in cost.compressions(network, hardware, **how)}


def test_zeros_buy_a_file_and_no_time_but_where_the_hardware_has_units_for_them() -> None:
    phone, card = bought(cost.PHONE, context=512), bought(cost.H100, context=512)
    for rows in (phone, card):
        plain, zeros = rows["as it is"], rows["50 % zeros"]
        assert zeros.file < plain.file and (zeros.memory, zeros.prefill, zeros.decode) == (
            *(plain.memory, plain.prefill, plain.decode),
        )
    assert phone["2:4 zeros"].memory == phone["as it is"].memory and "lacks" in phone["2:4 zeros"].why
    half = card["2:4 zeros"]
    assert half.prefill.seconds == pytest.approx(card["as it is"].prefill.seconds / 2, rel=0.05)
    assert half.memory == pytest.approx(9 / 16 * card["as it is"].memory, rel=0.05)


def test_bits_buy_time_where_bandwidth_binds_and_fewer_products_where_compute_does() -> None:
    rows = bought(cost.H100, context=512)
    plain, four, half = rows["as it is"], rows["4 bits"], rows["half the layers"]
    assert plain.decode and four.decode and half.decode
    assert plain.decode.by == "bandwidth" and plain.prefill.by == "compute"
    assert four.decode.seconds < 0.3 * plain.decode.seconds and four.prefill.seconds == plain.prefill.seconds
    assert half.prefill.seconds == pytest.approx(plain.prefill.seconds / 2, rel=0.01)
    assert rows["8 bits"].prefill.seconds == pytest.approx(plain.prefill.seconds / 2, rel=0.01)
    heads = rows["50 % heads, units"]
    assert heads.decode and heads.decode.seconds == pytest.approx(plain.decode.seconds / 2, rel=0.03)


def test_encoders_write_no_tokens_and_convnets_have_no_layers_to_halve() -> None:
    assert {each.decode for each in cost.compressions(cost.BERT_BASE, PLAIN)} == {None}
    rows = bought(PLAIN, cost.RESNET_50)
    assert "half the layers" not in rows and rows["50 % channels"].memory < 0.3 * rows["as it is"].memory
    assert "8 bits" not in bought(PLAIN, storage=Storage(8)) and "4 bits" in bought(PLAIN, storage=Storage(8))


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (lambda: replace(SMALL, layers=0), ValueError, "layers must be 1 or more; got 0"),
        (lambda: replace(SMALL, width=8.5), TypeError, "width must be a whole number; got 8.5"),  # type: ignore[arg-type]
        (lambda: replace(SMALL, heads=3), ValueError, "heads must divide width, 8, or head_width be given; got 3"),
        (lambda: replace(SMALL, kv_heads=3), ValueError, r"kv_heads must lie in 1 .. 2; got 3"),
        (lambda: replace(SMALL, head_width=0), ValueError, "head_width must be 1 or more; got 0"),
        (lambda: replace(SMALL, head="words"), ValueError, "head must be one of tied, own, none"),  # type: ignore[arg-type]
        (lambda: replace(SMALL, vocabulary=0), ValueError, "vocabulary must be 1 or more"),
        (lambda: replace(SMALL, positions=-1), ValueError, "positions must be 0 or more; got -1"),
        (lambda: replace(SMALL, rank=1.0), ValueError, r"rank must lie in \[0, 1\); got 1.0"),
        (lambda: SMALL.flops(0), ValueError, "tokens must be 1 or more; got 0"),
        (lambda: SMALL.cache(-1), ValueError, "tokens must be 0 or more; got -1"),
        (lambda: SMALL.activations(1, 0), ValueError, "batch must be 1 or more; got 0"),
        (lambda: SMALL.decode(0), ValueError, "batch must be 1 or more; got 0"),
        (lambda: SMALL.prefill(0), ValueError, "batch must be 1 or more; got 0"),
        (lambda: cost.BERT_BASE.decode(), ValueError, "BERT-base is an encoder, which writes no tokens"),
        (lambda: Storage(0), ValueError, "bits must be above 0; got 0"),
        (lambda: Storage(65), ValueError, "bits must be 64 or less; got 65"),
        (lambda: Storage(pattern="1:4"), ValueError, "pattern must be one of dense, anywhere, 2:4"),  # type: ignore[arg-type]
        (lambda: Storage(sparsity=0.5), ValueError, "sparsity of the pattern dense must be 0; got 0.5"),
        (lambda: Storage(pattern="2:4"), ValueError, "sparsity of the pattern 2:4 must be 0.5; got 0.0"),
        (lambda: Storage(pattern="anywhere", sparsity=1.0), ValueError, "sparsity must lie in"),
        (lambda: Hardware("none", {}, 1, 1), ValueError, "flops must name a rate"),
        (lambda: Hardware("none", {16: 0.0}, 1, 1), ValueError, "flops of 16 bits must be above 0; got 0.0"),
        (lambda: replace(PLAIN, bandwidth=-1), ValueError, "bandwidth must be above 0; got -1"),
        (lambda: replace(PLAIN, memory="8 GB"), TypeError, "memory must be a number; got '8 GB'"),  # type: ignore[arg-type]
        (lambda: cost.PHONE.rate(32), ValueError, "bits must be 16 or less on iPhone 15 Pro; got 32"),
        (lambda: Layer(3, 0), ValueError, "outputs must be 1 or more; got 0"),
        (lambda: Layer(3, 4, groups=2), ValueError, "groups must divide 3 and 4 channels; got 2"),
        (lambda: cost.ConvNet("none", (), 9), ValueError, "layers must have at least one"),
        (lambda: cost.ConvNet("none", (3,), 9), TypeError, "a layer must be a Layer; got 3"),  # type: ignore[arg-type]
        (lambda: cost.resnet("odd", (1,), stem=5), ValueError, "stem must be one of 3, 7; got 5"),
        (lambda: cost.resnet("odd", (1,)), ValueError, "widths must have one for each stage of blocks; got 4 and 1"),
        (lambda: cost.RESNET_18.thinner(0), ValueError, "share must be above 0; got 0"),
        (lambda: cost.RESNET_18.factored(2), ValueError, "rank must lie in"),
        (lambda: cost.RESNET_18.pass_over(0), ValueError, "batch must be 1 or more; got 0"),
        (lambda: cost.compressions(3, PLAIN), TypeError, "network must be a cost.Transformer or"),  # type: ignore[arg-type]
        (lambda: cost.compressions(SMALL, PLAIN, share=0.0), ValueError, "share must be above 0; got 0"),
        (lambda: cost.compressions(SMALL, PLAIN, share=1.0), ValueError, "share must lie in"),
        (lambda: cost.compressions(cost.RESNET_18, PLAIN, context=3), ValueError, "context: ResNet-18 reads images"),
        (
            lambda: cost.compressions(SMALL, PLAIN, storage=Storage(pattern="2:4", sparsity=0.5)),
            *(ValueError, "storage must be without zeros; got the pattern 2:4"),
        ),
        (lambda: cost.training(SMALL, 0), ValueError, "tokens must be above 0; got 0"),
        (lambda: cost.training(cost.RESNET_18), TypeError, "network must be a cost.Transformer"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_is_refused_in_a_sentence(ask: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        ask()
