"""Cohorts of bags of words go the way of each network alone; small transformers go through `vmap`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kit import cohort, models, training
from kit.cohort import Cohort, Member, members
from kit.data import Dataset
from tests.test_cohort_fitting import assert_as_alone
from tests.texts import tiny_texts, tokens

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize(
    "own",
    [
        {"lr": [1e-3, 0.05]},
        {"lr": 0.01, "weight_decay": [0, 0.1]},
        {"lr": 0.02, "label_smoothing": [0, 0.2]},
        {"lr": 0.02, "n_train": [51, None]},
        {"lr": 0.02, "weight_decay": 0.1, "width": [1, 3, None]},
    ],
    ids=lambda own: list(own)[-1],
)
def test_each_bag_of_words_goes_its_own_way(own: dict[str, Any], optimiser: str) -> None:
    texts = tiny_texts()
    those = members(seed=[0, 3], **own)
    size, classes = tokens().size, texts.n_classes
    alone = [models.BagOfWords(size, classes, member.width or 5, seed=member.seed) for member in those]
    template = models.BagOfWords(size, classes, 5)
    assert_as_alone(template, those, alone, texts.train, optimiser=optimiser)


def test_a_cohort_of_transformers_is_training_fit() -> None:
    texts = tiny_texts()
    template = models.Transformer(tokens().size, 10, 3, width=8, heads=2, layers=1)
    together = Cohort(template, members(seed=range(2), lr=0.01))
    cohort.fit(together, texts.train, epochs=1, batch_size=16)
    for seed in range(2):
        net = models.Transformer(tokens().size, 10, 3, width=8, heads=2, layers=1, seed=seed)
        training.fit(net, texts, epochs=1, batch_size=16, lr=0.01, seed=seed)
        # Not the weights: the bias of the keys has no slope, and Adam makes steps of its rounding.
        ids = texts.validation.inputs
        torch.testing.assert_close(together(ids)[seed], training.predict(net, ids), atol=1e-3, rtol=1e-3)


def test_answers_are_those_of_the_networks_alone_also_of_a_text_without_a_token() -> None:
    texts = tiny_texts()
    ids = texts.validation.inputs[:9].clone()
    ids[4] = 0
    together = Cohort(models.BagOfWords(tokens().size, 3, 6), members(seed=range(3), width=[2, 6]))
    for logits, net in zip(together(ids), together.models(), strict=True):
        torch.testing.assert_close(logits, training.predict(net, ids))
    assert [net.get_parameter("tokens.weight").shape[1] for net in together.models()] == [2, 6] * 3


def test_dropout_leaves_out_numbers_of_the_mean_in_training_alone() -> None:
    texts = tiny_texts()

    def trained(**own: Any) -> Cohort:
        together = Cohort(models.BagOfWords(tokens().size, 3, 8), members(seed=range(2), lr=0.01, **own))
        cohort.fit(together, texts.train, epochs=2)
        return together

    plain, dropped, again = trained(), trained(dropout=0.5), trained(dropout=0.5)
    assert torch.equal(dropped.weights, again.weights)
    assert not torch.allclose(dropped.weights, plain.weights, atol=1e-3)
    ids = texts.validation.inputs
    torch.testing.assert_close(dropped(ids)[1], training.predict(dropped.model(1), ids))


def test_what_dropout_draws_scales_the_gradient_of_a_row() -> None:
    """With every unit dropped but the first, only the first column of a table moves."""
    ids = torch.tensor([[[2, 3, 0], [1, 0, 0]]])  # [1, 2, 3]
    template = models.BagOfWords(4, 2, 3)
    blocks = {name: each[None].detach().clone().requires_grad_() for name, each in template.named_parameters()}
    mask = torch.tensor([2.0, 0.0, 0.0])[None, :, None].expand(1, 3, 2)  # [1, width, n]
    z = cohort.passes.logits(template, blocks, ids, [mask])
    table, weight, bias = (each[0] for each in blocks.values())
    means = torch.stack([(table[2] + table[3]) / 2, table[1]])
    wanted = means * torch.tensor([2.0, 0.0, 0.0]) @ weight.T + bias
    torch.testing.assert_close(z[0].T, wanted)
    z.sum().backward()
    slope = blocks["tokens.weight"].grad
    assert slope is not None and bool((slope[0, 1:, 0] != 0).all())
    assert not bool(slope[0, :, 1:].any()) and not bool(slope[0, 0].any())  # row 0 is padding


def test_the_template_of_a_data_set(digits: Dataset) -> None:
    texts = tiny_texts()
    bag, mlp = cohort.template(texts, 7), cohort.template(digits, 7)
    assert isinstance(bag, models.BagOfWords) and bag.tokens.weight.shape == (tokens().size, 7)
    assert isinstance(mlp, models.MLP) and mlp.sizes == (64, 7, 10)
    assert cohort.template(digits, 0).sizes == (64, 10)
    assert (cohort.n_inputs(texts), cohort.n_inputs(digits)) == (tokens().size, 64)
    with pytest.raises(ValueError, match=r"^width must be 1 or more; got 0\.$"):
        cohort.template(texts, 0)


def test_it_is_refused_what_does_not_fit_bags_of_words() -> None:
    template = models.BagOfWords(9, 3, 4)
    with pytest.raises(ValueError, match="width must be at most the template's 4; got 5"):
        Cohort(template, [Member(width=5)])
    with pytest.raises(ValueError, match="width: a cohort can vary it in bags of words, and in MLPs .* is Transformer"):
        Cohort(models.Transformer(9, 4, width=8, heads=2), [Member(width=5)])
    texts = tiny_texts()
    with pytest.raises(ValueError, match="tables of 5 rows, cannot take 10 ids a sample"):
        cohort.fit(Cohort(models.BagOfWords(5, 3, 4), [Member()]), texts.train, epochs=1)
    assert cohort.speed(cohort.template(texts, 4), texts.train) > 0
