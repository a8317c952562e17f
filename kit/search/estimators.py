"""scikit-learn's estimators as objectives, and a space as scikit-learn's own searches take it."""

from __future__ import annotations

from numbers import Real
from typing import Any

from scipy.stats import loguniform, randint, uniform
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import cross_val_score

from kit import checks
from kit.search.space import Config, Float, Int, Space


class CrossValidation:
    """The scores of an estimator under cross-validation, one for each fold.

    Args:
        estimator: any of scikit-learn's; cloned for every trial.
        inputs: [n, features].
        labels: [n].
        cv: as in `cross_val_score`: a number of folds, a splitter, or a list of splits.
        scoring: as there; None takes the estimator's own score, for which more is better.

    Raises:
        ValueError: a configuration with a key that the estimator does not have; fewer folds than 2.
        TypeError: no estimator, such as a class in place of an instance.
    """

    def __init__(self, estimator: BaseEstimator, inputs: Any, labels: Any, *, cv: Any = 5, scoring: Any = None) -> None:
        if isinstance(cv, (Real, str)):
            checks.whole("cv", cv, 2)
        self.estimator, self.inputs, self.labels, self.cv, self.scoring = clone(estimator), inputs, labels, cv, scoring

    def __call__(self, config: Config) -> list[float]:
        """Fit and score on every fold; what a fit raises is raised."""
        estimator, settings = clone(self.estimator).set_params(**config), {"cv": self.cv, "scoring": self.scoring}
        return cross_val_score(estimator, self.inputs, self.labels, **settings, error_score="raise").tolist()


def distributions(space: Space) -> dict[str, Any]:
    """The space for `RandomizedSearchCV`: uniform, log-uniform, or a list; a ValueError for a logarithmic Int."""
    checks.instance("space", space, Space)
    found: dict[str, Any] = {}
    for name, parameter in space.parameters.items():
        if isinstance(parameter, Float):
            law = loguniform if parameter.log else uniform
            found[name] = law(parameter.low, parameter.high if parameter.log else parameter.high - parameter.low)
        elif isinstance(parameter, Int):
            if parameter.log:
                raise ValueError(f"space: {name} is a logarithmic Int, for which SciPy has no law; make it a Float.")
            found[name] = randint(parameter.low, parameter.high + 1)
        else:
            found[name] = list(parameter.options)
    return found
