"""Which hyper-parameter mattered: the share of a value's variance that each explains by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kit import checks
from kit.search.space import Space
from kit.search.trials import Trial

FEWEST = 8  # trials: of fewer a forest learns nothing
TREES, LEAF = 64, 3  # of the forest; trials in a leaf at least


def importance(
    space: Space, trials: Sequence[Trial], what: str | None = None, *, log: bool = False, seed: int = 0
) -> dict[str, float]:
    """The share of the variance over the whole space that each parameter explains alone, by functional ANOVA.

    A forest learns the value from the place in the unit cube. A tree is constant in boxes, so the mean over all other
    parameters is exact, and is a step function of the one that is left; its variance, over that of the tree, is the
    share. What is missing to 1 is explained by several parameters together, and by the noise of single trials, which a
    forest fits, too. Regions that were tried more often count no more than others, but are known better.

    Args:
        space: of the trials.
        trials: those that are done count, 8 or more.
        what: the objective's name; None for the value of a study of one objective.
        log: whether the logarithm of the value is explained.
        seed: of the forest.

    Returns:
        One share for each parameter, 0 .. 1, their sum at most 1; zeros where the value never changes.

    Raises:
        TypeError, ValueError: too few trials, or no value of that name; a value without a logarithm where one is asked.

    Source: Hutter, Hoos, Leyton-Brown (2014), An efficient approach for assessing hyperparameter importance, ICML,
    algorithms 1 and 2.
    """
    from sklearn.ensemble import RandomForestRegressor  # takes a moment to load

    checks.instance("space", space, Space)
    checks.whole("seed", seed)
    done = [trial for trial in trials if trial.status == "done"]
    if len(done) < FEWEST:
        raise ValueError(f"trials must be {FEWEST} or more that are done; got {len(done)}.")
    given = [trial.value if what is None else trial.values.get(what) for trial in done]
    values = [value for value in given if value is not None]
    if len(values) < len(done):
        names = ", ".join(done[0].values) or "None, for the value of one objective"
        raise ValueError(f"what must be the name of an objective ({names}); got {what!r}.")
    if log and min(values) <= 0:
        raise ValueError(f"log needs values above 0; got {min(values)!r}.")
    places = np.array([space.encode(trial.config) for trial in done])  # [n, d]
    forest = RandomForestRegressor(TREES, min_samples_leaf=LEAF, random_state=seed)
    forest.fit(places, np.log(values) if log else values)
    shares = np.array([_shares(*_boxes(tree.tree_, len(space))) for tree in forest.estimators_])  # [trees, d]
    return dict(zip(space.names, shares.mean(0).tolist(), strict=True))


def _boxes(tree: Any, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of the boxes of the unit cube in which a tree is constant, and its values there. -> [L, d] twice, [L]."""
    low, high = np.zeros((tree.node_count, d)), np.ones((tree.node_count, d))
    for node in range(tree.node_count):  # parents stand before their children
        left, right, at = tree.children_left[node], tree.children_right[node], tree.feature[node]
        if left >= 0:
            low[[left, right]], high[[left, right]] = low[node], high[node]
            high[left, at] = low[right, at] = tree.threshold[node]
    leaves = tree.children_left < 0
    return low[leaves], high[leaves], tree.value[leaves, 0, 0]


def _shares(low: np.ndarray, high: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The share of the variance of a function, constant in boxes, that each coordinate explains alone. -> [d]."""
    sides = high - low  # [L, d]
    volumes = sides.prod(1)
    mean = float(values @ volumes)
    variance, found = float((values - mean) ** 2 @ volumes), np.zeros(low.shape[1])
    for at in range(low.shape[1] if variance > 0 else 0):
        edges, places = np.unique(np.concatenate([low[:, at], high[:, at]]), return_inverse=True)
        parts = values * volumes / sides[:, at]  # of the mean over all others, where the box is
        steps = np.bincount(places, np.concatenate([parts, -parts])).cumsum()[:-1]  # between the edges
        found[at] = (steps - mean) ** 2 @ np.diff(edges) / variance
    return found
