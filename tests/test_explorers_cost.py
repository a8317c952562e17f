from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kit import cost
from kit.cost import Hardware, Storage
from kit.explorers import CostExplorer
from kit.explorers import cost as room
from tests.hands import PATIENCE, settle, words

SLOW = Hardware("mine", {32: 1e11, 16: 1e11}, bandwidth=1e10, memory=20e9, source="a test")


@pytest.fixture
def explorer() -> Iterator[CostExplorer]:
    with contextlib.closing(CostExplorer()) as made:
        made.wait(PATIENCE)
        yield made


def test_it_answers_as_the_formulae_do(explorer: CostExplorer) -> None:
    assert replace(explorer.network, head_width=None) == cost.LLAMA_7B
    assert explorer.bound == cost.bound(cost.LLAMA_7B.decode(1, 2048), cost.H100)
    settle(explorer, bits=4, batch=8, phase="prefill")
    storage = Storage(4, group=128)
    assert explorer.bound == cost.bound(cost.LLAMA_7B.prefill(8, 2048, storage), cost.H100)
    assert explorer.memory["cache"] == cost.LLAMA_7B.cache(2048, 8)
    tables = ("embeddings", "attention", "feed-forward")
    assert sum(explorer.memory[name] for name in tables) == pytest.approx(cost.LLAMA_7B.bytes(storage))


@pytest.mark.parametrize("model", cost.TRANSFORMERS, ids=lambda model: model.name)
def test_a_model_brings_its_dimensions_by_hand_and_by_set(explorer: CostExplorer, model: cost.Transformer) -> None:
    for choose in (
        functools.partial(explorer.set, model=model.name),
        lambda: setattr(explorer.model, "value", model.name),
    ):
        explorer.reset()
        choose()
        explorer.wait(PATIENCE)
        assert explorer.network.parameters == model.parameters
        assert (explorer.layers.value, explorer.context.value) == (model.layers, model.context)


def test_heads_follow_the_width_and_can_be_taken_away(explorer: CostExplorer) -> None:
    explorer.width.value = 2048
    explorer.wait(PATIENCE)
    assert explorer.heads.value == 16 and explorer.network.hidden == 11008 // 2
    before = explorer.network.parts
    settle(explorer, heads=8)
    assert explorer.network.parts["attention"] == before["attention"] // 2
    assert explorer.network.parts["feed-forward"] == before["feed-forward"]
    settle(explorer, model="LLaMA-2-70B", heads=32)
    assert explorer.network.kv_heads == 4


def test_code_says_the_dimensions_where_the_model_moved(explorer: CostExplorer) -> None:
    settle(explorer, model="GPT-2 XL", layers=32)  # as many as the first model has
    with contextlib.closing(eval(explorer.code())) as rebuilt:
        assert rebuilt._values() == explorer._values()


def test_an_encoder_has_one_step_and_says_so(explorer: CostExplorer) -> None:
    settle(explorer, model="BERT-base")
    assert explorer.bound == cost.bound(cost.BERT_BASE.prefill(1, 512), cost.H100)
    assert "an encoder, which writes no tokens" in words(explorer)
    assert explorer.memory["activations"] == cost.BERT_BASE.activations(512)  # not those of one token
    assert explorer._answered is not None and not explorer._answered.batches


def test_zeros_are_said_to_buy_a_file_only_where_that_is_so(explorer: CostExplorer) -> None:
    plain, said = explorer.bound, "The zeros buy no time here"
    settle(explorer, zeros="90 %")
    assert explorer.bound == plain and said in words(explorer)
    settle(explorer, zeros="2:4")
    assert explorer.bound.seconds < plain.seconds and said not in words(explorer)
    settle(explorer, hardware="iPhone 15 Pro")
    assert said in words(explorer)


def test_what_does_not_fit_is_said(explorer: CostExplorer) -> None:
    assert explorer.fits and "fits into memory" in words(explorer)
    settle(explorer, hardware="Raspberry Pi 5")
    assert not explorer.fits and "does not fit into memory" in words(explorer)
    settle(explorer, hardware="Raspberry Pi 5", bits=4)
    assert explorer.fits


def test_the_turning_batch_is_said(explorer: CostExplorer) -> None:
    assert "never make it bound by compute" in words(explorer)
    settle(explorer, context=64)
    turn = cost.LLAMA_7B.turning_batch(cost.H100, 64)
    assert f"From {turn:,.0f} texts at once it is bound by compute" in words(explorer)


def test_this_machine_is_measured_when_it_is_chosen_and_shows_its_interval(
    explorer: CostExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = replace(SLOW, bandwidth=5e9), replace(SLOW, bandwidth=2e10)
    measured, asked = replace(SLOW, name=room.HERE, interval=ends), list[int]()

    def here() -> Hardware:
        asked.append(1)
        return measured

    monkeypatch.setattr(room.cost, "here", here)
    settle(explorer, hardware=room.HERE)
    settle(explorer, bits=8)
    assert asked == [1] and "this machine's rates are a test" in words(explorer)
    x, value, low, high = explorer._now.values
    assert low < value < high and x == pytest.approx(explorer.step.intensity)
    assert explorer.bound.low < explorer.bound.seconds < explorer.bound.high


def test_ones_own_model_and_machine() -> None:
    own = replace(cost.GPT2, name="mine", layers=5, width=48, heads=3, hidden=100, context=30, positions=30)
    with contextlib.closing(CostExplorer(own, hardware=SLOW)) as explorer:
        explorer.wait(PATIENCE)
        assert replace(explorer.network, head_width=None) == own
        assert explorer.bound == cost.bound(own.decode(1, 30), SLOW) and "those that you gave" in words(explorer)
        assert explorer.code() == "CostExplorer(model, hardware=hardware)"
        with contextlib.closing(
            eval(explorer.code(), {"CostExplorer": CostExplorer, "model": own, "hardware": SLOW})
        ) as again:
            assert again.in_words == explorer.in_words


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"model": cost.RESNET_50}, TypeError, "model must be a cost.Transformer; got an object of type ConvNet"),
        ({"hardware": "H100"}, TypeError, "hardware must be a cost.Hardware; got 'H100'"),
        ({"hardware": Hardware("tiny", {8: 1.0}, 1, 1)}, ValueError, "bits must be 8 or less on tiny; got 16"),
    ],
)
def test_wrong_arguments_are_refused(given: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        CostExplorer(**given)
