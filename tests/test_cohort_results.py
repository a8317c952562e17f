"""What a cohort reached, against the networks taken out and counted one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from kit import cohort, data, measure, models, training
from kit.cohort import HYPER_PARAMETERS, Cohort, CohortHistory, Member, members
from kit.data import Dataset
from kit.measure import Estimate

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    return data.Dataset("few", digits.train.first(200), digits.validation, digits.test, digits.class_names)


def fitted(few: Dataset, those: tuple[Member, ...], **settings: Any) -> tuple[Cohort, CohortHistory]:
    together = Cohort(models.MLP((64, 8, 10)), those)
    return together, cohort.fit(together, few.train, **{"epochs": 8, "batch_size": 20, **settings})


@pytest.fixture(scope="module")
def three(few: Dataset) -> tuple[Cohort, CohortHistory]:
    """Two sound networks with one between them that diverges."""
    return fitted(few, members(lr=[0.02, 1e30, 0.05], seed=2))


def test_answers_are_those_of_the_networks_one_by_one(three: tuple[Cohort, CohortHistory], few: Dataset) -> None:
    inputs = few.validation.inputs  # more than one batch of answers
    named = cohort.answers(three[0], inputs)
    assert named.shape == (3, len(few.validation))
    for at in (0, 2):
        assert torch.equal(named[at], training.predict(three[0].model(at), inputs).argmax(1))
    assert set(named[1].tolist()) == {-1}


def test_accuracies_are_counted_on_the_split(three: tuple[Cohort, CohortHistory], few: Dataset) -> None:
    found = cohort.accuracies(three[0], few.validation)
    for at in (0, 2):
        assert found[at] == measure.accuracy(three[0].model(at), few.validation)
        assert found[at].value > 0.5
    assert found[1] == Estimate.from_counts(0, len(few.validation))
    with pytest.raises(ValueError, match="split is empty; it needs at least one sample"):
        cohort.accuracies(three[0], few.validation.first(0))


def test_the_table_has_a_row_for_each_network(three: tuple[Cohort, CohortHistory], few: Dataset) -> None:
    together, history = three
    rows = cohort.table(together, history, few)
    assert list(rows.columns) == [*HYPER_PARAMETERS, "loss", "accuracy", "low", "high", "n", "diverged"]
    assert rows[["lr", "seed", "diverged"]].values.tolist() == [[0.02, 2, False], [1e30, 2, True], [0.05, 2, False]]
    for at in (0, 2):
        estimate = measure.accuracy(together.model(at), few.validation)
        assert tuple(rows.loc[at, ["accuracy", "low", "high", "n"]]) == tuple(vars(estimate).values())
        assert rows.loc[at, "loss"] == history.losses[at][-1]
    assert rows.loc[1, ["loss", "accuracy", "low", "high"]].isna().all()
    rows = cohort.table(*fitted(few, members(seed=range(2)), epochs=0), few)
    assert rows["loss"].isna().all() and rows["accuracy"].notna().all()


def test_folds_answer_for_the_rows_they_left_out(few: Dataset) -> None:
    those = members(lr=[0.01, 0.03], fold=[*range(3), None], folds=3)
    together, history = fitted(few, those)
    rows = cohort.table(together, history, few)
    cuts = list(StratifiedKFold(3, shuffle=True, random_state=0).split(few.train.labels, few.train.labels))
    for at, member in enumerate(those):
        part = few.validation
        if member.fold is not None:
            inside = torch.from_numpy(cuts[member.fold][1])
            part = data.Split(few.train.inputs[inside], few.train.labels[inside])
        estimate = measure.accuracy(together.model(at), part)
        assert tuple(rows.loc[at, ["accuracy", "low", "high", "n"]]) == tuple(vars(estimate).values())


def test_the_history_of_another_cohort_is_refused(few: Dataset) -> None:
    together, history = fitted(few, members(seed=range(2)))
    other, _ = fitted(few, members(seed=range(3)))
    with pytest.raises(ValueError, match="history is of 2 networks, and the cohort has 3"):
        cohort.table(other, history, few)
    with pytest.raises(TypeError, match="dataset must be a Dataset.*got Split"):
        cohort.table(together, history, few.train)  # type: ignore[arg-type]


def test_what_is_no_cohort_no_history_or_no_sample_is_refused(
    three: tuple[Cohort, CohortHistory], few: Dataset
) -> None:
    together, history = three
    for ask in (together, lambda inputs: cohort.answers(together, inputs)):
        with pytest.raises(ValueError, match=r"the model cannot take samples of shape \(5,\)"):
            ask(torch.zeros(3, 5))
        with pytest.raises(TypeError, match="inputs must be a .*ensor.*; got an object of type ndarray"):
            ask(few.validation.inputs.numpy())
    for given, sentence in (
        ((together, None, few), "history must be a CohortHistory, as cohort.fit gives it; got None"),
        ((models.MLP((64, 10)), history, few), "cohort must be a Cohort; got"),
        ((together, history, few.train), "dataset must be a Dataset, .*; got Split"),
    ):
        with pytest.raises(TypeError, match=sentence):
            cohort.table(*given)
