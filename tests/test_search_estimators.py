"""scikit-learn's estimators as objectives, against scikit-learn's own searches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, ParameterSampler, RandomizedSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from kit.search import Choice, Float, Int, Listed, Space, Study
from kit.search.estimators import CrossValidation, distributions

SPACE = Space({"alpha": Float(1e-4, 10, log=True), "fit_intercept": Choice(True, False)})


@pytest.fixture(scope="module")
def diabetes() -> tuple[Any, Any]:
    return load_diabetes(return_X_y=True)


FOLDS = KFold(4, shuffle=True, random_state=0)


@pytest.mark.parametrize(("cv", "scoring"), [(5, None), (3, "neg_mean_absolute_error"), (FOLDS, "r2")])
def test_scores_are_those_of_cross_val_score(diabetes: tuple[Any, Any], cv: Any, scoring: Any) -> None:
    estimator = Ridge(alpha=3.0)
    objective = CrossValidation(estimator, *diabetes, cv=cv, scoring=scoring)
    for alpha in (0.01, 1.0):
        expected = cross_val_score(Ridge(alpha=alpha), *diabetes, cv=cv, scoring=scoring)
        assert objective({"alpha": alpha}) == expected.tolist()
    assert estimator.alpha == 3.0 and not hasattr(estimator, "coef_")  # it stays as it was given


def test_parts_of_a_pipeline_go_by_their_names() -> None:
    inputs, labels = load_iris(return_X_y=True)
    objective = CrossValidation(make_pipeline(StandardScaler(), SVC()), inputs, labels, cv=3)
    expected = cross_val_score(make_pipeline(StandardScaler(), SVC(C=0.01)), inputs, labels, cv=3)
    assert objective({"svc__C": 0.01}) == expected.tolist()


def test_a_study_gives_the_table_of_randomized_search(diabetes: tuple[Any, Any]) -> None:
    """The same configurations: the same means, deviations over folds, and ranks."""
    other = RandomizedSearchCV(Ridge(), distributions(SPACE), n_iter=12, cv=4, random_state=0).fit(*diabetes)
    configs = other.cv_results_["params"]
    study = Study(SPACE, maximise=True)
    table = study.run(CrossValidation(Ridge(), *diabetes, cv=4), Listed(configs), budget=12).table()
    assert table["params"].tolist() == list(configs)
    for column in ("mean_test_score", "std_test_score", *(f"split{at}_test_score" for at in range(4))):
        np.testing.assert_allclose(table[column], other.cv_results_[column], rtol=1e-12)
    assert table["rank_test_score"].tolist() == other.cv_results_["rank_test_score"].tolist()
    assert study.best.config == other.best_params_
    assert study.best.value == pytest.approx(other.best_score_, rel=1e-12)


def test_an_unknown_key_fails_the_trial_in_the_words_of_scikit_learn(diabetes: tuple[Any, Any]) -> None:
    objective = CrossValidation(Ridge(), *diabetes)
    with pytest.raises(ValueError) as expected:
        Ridge().set_params(alfa=1.0)
    with pytest.raises(ValueError) as found:
        objective({"alfa": 1.0})
    assert str(found.value) == str(expected.value) and "'alfa'" in str(found.value)
    (trial,) = Study(Space({"alfa": Float(0, 1)})).run(objective, Listed([{"alfa": 0.5}]), budget=1).trials
    assert (trial.status, trial.error) == ("failed", f"ValueError: {expected.value}")


@pytest.mark.parametrize(
    ("estimator", "cv", "sentence"),
    [
        (Ridge, 5, "provide an instance"),
        (None, 5, "Cannot clone object"),
        (Ridge(), 1, "cv must be 2 or more; got 1."),
        (Ridge(), 2.5, "cv must be a whole number; got 2.5."),
        (Ridge(), "five", "cv must be a whole number; got 'five'."),
    ],
)
def test_what_cannot_be_validated_is_refused_before_any_trial(estimator: Any, cv: Any, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        CrossValidation(estimator, np.ones((9, 1)), np.arange(9), cv=cv)


# -- distributions -----------------------------------------------------------------------------------------------------


def test_distributions_have_the_law_of_the_space() -> None:
    """Each number, at its place in the unit interval, is even there."""
    n, floats = 2000, {"rate": Float(1e-4, 1, log=True), "share": Float(-2, 3)}
    space = Space({**floats, "depth": Int(2, 5), "kind": Choice("a", None, 3)})
    drawn = list(ParameterSampler(distributions(space), n, random_state=0))
    assert all(space.check(config) == {name: config[name] for name in space.names} for config in drawn)
    for name in ("rate", "share"):
        places = [space.parameters[name].encode(config[name]) for config in drawn]
        assert kstest(places, "uniform").pvalue > 0.01
    levels: dict[str, list[Any]] = {"depth": [2, 3, 4, 5], "kind": ["a", None, 3]}
    for name, values in levels.items():
        counts = np.array([sum(config[name] == value for config in drawn) for value in values])
        even = n / len(values)
        assert counts.sum() == n
        assert (abs(counts - even) < 4 * np.sqrt(even * (1 - 1 / len(values)))).all()


def test_a_logarithmic_whole_number_has_no_law() -> None:
    with pytest.raises(ValueError, match=r"space: width is a logarithmic Int, .* make it a Float\."):
        distributions(Space({"rate": Float(0, 1), "width": Int(1, 100, log=True)}))
    with pytest.raises(TypeError, match="space must be a Space; got {'rate'"):
        distributions({"rate": Float(0, 1)})  # type: ignore[arg-type]
