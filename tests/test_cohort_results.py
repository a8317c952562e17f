"""What a cohort reached, against the networks taken out and counted one by one."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
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
    assert rows["lr"].tolist() == [0.02, 1e30, 0.05]
    assert rows["seed"].tolist() == [2, 2, 2]
    assert rows["diverged"].tolist() == [False, True, False]
    for at in (0, 2):
        estimate = measure.accuracy(together.model(at), few.validation)
        assert tuple(rows.loc[at, ["accuracy", "low", "high", "n"]]) == tuple(vars(estimate).values())
        assert rows.loc[at, "loss"] == history.losses[at][-1]
    assert rows.loc[1, ["loss", "accuracy", "low", "high"]].isna().all()


def test_without_an_epoch_there_is_no_loss(few: Dataset) -> None:
    rows = cohort.table(*fitted(few, members(seed=range(2)), epochs=0), few)
    assert rows["loss"].isna().all()
    assert rows["accuracy"].notna().all()


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
    validated = cohort.over_seeds(rows[rows["fold"].notna()])
    assert validated["lr"].tolist() == [0.01, 0.03]
    for lr, value in zip(validated["lr"], validated["accuracy"], strict=True):
        own = rows[(rows["lr"] == lr) & rows["fold"].notna()]["accuracy"]
        assert len(own) == 3
        assert value == pytest.approx(own.mean())


# Over seeds


def made(*rows: dict[str, Any]) -> pd.DataFrame:
    """A table with the given numbers, as `table` would give it."""
    plain = {"loss": 0.1, "low": 0.0, "high": 1.0, "n": 100, "diverged": False}
    return pd.DataFrame([{**vars(Member()), **plain, **row} for row in rows])


def assert_row(row: pd.Series, values: list[float], members: int, diverged: int) -> None:
    if len(values) > 1:
        estimate = Estimate.from_values(values)
        assert (row["accuracy"], row["low"], row["high"]) == pytest.approx(
            (estimate.value, max(0.0, estimate.low), min(1.0, estimate.high))
        )
    else:
        assert row["accuracy"] == values[0] if values else math.isnan(row["accuracy"])
        assert math.isnan(row["low"])
        assert math.isnan(row["high"])
    assert (row["members"], row["diverged"]) == (members, diverged)


def test_seeds_orders_and_folds_make_one_setting() -> None:
    rows = made(
        {"lr": 0.1, "seed": 0, "accuracy": 0.9},
        {"lr": 0.2, "seed": 0, "accuracy": 0.5},
        {"lr": 0.1, "seed": 1, "order": 4, "accuracy": 0.8},
        {"lr": 0.2, "seed": 1, "accuracy": math.nan, "diverged": True},
        {"lr": 0.1, "fold": 2, "accuracy": 0.85},
        {"lr": 0.3, "accuracy": math.nan, "diverged": True},
    )
    found = cohort.over_seeds(rows)
    assert list(found.columns) == ["lr", "accuracy", "low", "high", "members", "diverged"]
    assert found["lr"].tolist() == [0.1, 0.2, 0.3]
    assert_row(found.loc[0], [0.9, 0.8, 0.85], 3, 0)
    assert_row(found.loc[1], [0.5], 2, 1)
    assert_row(found.loc[2], [], 1, 1)


def test_settings_are_every_combination_that_was_there() -> None:
    """A width of None, the template's own, is a setting like any other."""
    rows = made(
        {"width": 4, "alpha": 1.0, "seed": 0, "accuracy": 0.1},
        {"width": None, "alpha": 1.0, "seed": 0, "accuracy": 0.2},
        {"width": None, "alpha": 1.0, "seed": 1, "accuracy": 0.3},
        {"width": None, "alpha": 0.5, "seed": 0, "accuracy": 0.4},
    )
    found = cohort.over_seeds(rows)
    assert list(found.columns)[:2] == ["alpha", "width"]
    by_setting = {
        (row["alpha"], None if math.isnan(row["width"]) else int(row["width"])): row for _, row in found.iterrows()
    }
    assert set(by_setting) == {(1.0, 4), (1.0, None), (0.5, None)}
    assert_row(by_setting[1.0, None], [0.2, 0.3], 2, 0)
    assert_row(by_setting[1.0, 4], [0.1], 1, 0)
    assert_row(by_setting[0.5, None], [0.4], 1, 0)


def test_one_setting_alone_is_one_row() -> None:
    found = cohort.over_seeds(made(*({"seed": seed, "accuracy": 0.9 - seed / 50} for seed in range(4))))
    assert list(found.columns) == ["accuracy", "low", "high", "members", "diverged"]
    assert len(found) == 1
    assert_row(found.loc[0], [0.9, 0.88, 0.86, 0.84], 4, 0)


def test_a_whole_table_goes_over_seeds(few: Dataset) -> None:
    together, history = fitted(few, members(lr=[0.01, 1e30], seed=range(3)))
    rows = cohort.table(together, history, few)
    found = cohort.over_seeds(rows)
    assert found["lr"].tolist() == [0.01, 1e30]
    reached = [measure.accuracy(together.model(at), few.validation).value for at in range(3)]
    assert_row(found.loc[0], reached, 3, 0)
    assert_row(found.loc[1], [], 3, 3)


def test_the_history_of_another_cohort_is_refused(few: Dataset) -> None:
    together, history = fitted(few, members(seed=range(2)))
    other, _ = fitted(few, members(seed=range(3)))
    with pytest.raises(ValueError, match="history is of 2 networks, and the cohort has 3"):
        cohort.table(other, history, few)
    with pytest.raises(TypeError, match="dataset must be a Dataset.*got Split"):
        cohort.table(together, history, few.train)  # type: ignore[arg-type]
