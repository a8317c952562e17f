"""Checks of the notebook on structure and tuning together: fronts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kit.exercises.verdict import Wrong, answered, checked
from kit.search import nsga2, pareto


@checked
def crowding_distance(answer: Callable[[np.ndarray], Any]) -> str:
    """How far apart the neighbours of each trial of a front are, by NSGA-II.

    Args:
        answer: takes losses [n, m] of one front, in any order, and gives the crowding distances [n], in the same
            order: for each objective the gap between both neighbours as a share of the range, summed; infinity at the
            ends of each objective, one trial at each. Where all values of an objective are equal, no matter which.
    """
    rng = np.random.default_rng(0)
    first = rng.random(7)
    for case, losses in (
        ("Of a front with two objectives", np.column_stack([first, 100 * (1 - first) ** 2])),
        ("Of three objectives", rng.dirichlet(np.ones(3), 6)),  # all sum to 1, so none dominates another
        ("Of two trials", np.array([[0.0, 1.0], [1.0, 0.0]])),
        ("Where all values of one objective are equal", np.column_stack([np.sort(rng.random(5)), np.ones(5)])),
    ):
        found = np.asarray(answered(answer(losses.copy())), dtype=float)
        want = nsga2.crowding(losses)
        if found.shape != want.shape:
            raise Wrong(f"{case}: give one number for each of the {len(want)} trials; got the shape {found.shape}.")
        if np.isnan(found).any():
            raise Wrong(f"{case}: there is a NaN in it. Which range did you divide by?")
        _check_ends(found, want, case)
        inner = np.isfinite(want)
        if not np.allclose(found[inner], want[inner]):
            raise Wrong(f"{case}: {_crowding_slip(found, losses, want)}")
    return "A front of two is all ends; where all values are equal, that objective says nothing of the inner ones."


def _check_ends(found: np.ndarray, want: np.ndarray, case: str) -> None:
    ends = np.isinf(want)
    if not (found[ends] == np.inf).all():
        raise Wrong(
            f"{case}: the first and the last in each objective must have an infinite distance, so that they live."
        )
    if np.isinf(found[~ends]).any():
        raise Wrong(f"{case}: a trial is infinite there that is no end of any objective.")


def _crowding_slip(found: np.ndarray, losses: np.ndarray, want: np.ndarray) -> str:
    """What gives this in place of `want`."""
    order, inner = np.argsort(losses[:, 0]), np.isfinite(want)
    slips = [
        (want[order], "these are the right numbers in the order of the first objective; keep the order of the rows."),
        (
            _gaps(losses, np.ones(losses.shape[1])),
            "divide each gap by the range of its objective: units must not count.",
        ),
        (want / losses.shape[1], "the mean over the objectives is given there; the sum is asked for."),
        (want / 2, "the gap is from the neighbour before to the one after, not half of it."),
        (_gaps(losses[:, :1], np.ptp(losses[:, :1], 0)), "only the first objective counts there."),
        (_gaps(losses, np.ptp(losses, 0), ahead=0), "the gap is from the neighbour before to the one *after*."),
        (_gaps(losses, np.ptp(losses, 0), behind=0), "the gap is from the neighbour *before* to the one after."),
    ]
    fitting = (words for values, words in slips if np.allclose(found[inner], values[inner], equal_nan=True))
    return next(fitting, "sort by each objective for itself, and sum the gaps between both neighbours.")


def _gaps(losses: np.ndarray, ranges: np.ndarray, *, behind: int = 1, ahead: int = 1) -> np.ndarray:
    """Sums of gaps between the one so far behind and the one so far ahead; 0 at the ends. [n, m] -> [n]."""
    total = np.zeros(len(losses))
    for column, width in zip(losses.T, ranges, strict=True):
        order = np.argsort(column)
        for at in range(1, len(order) - 1):
            total[order[at]] += (column[order[at + ahead]] - column[order[at - behind]]) / (width or 1.0)
    return total


@checked
def area_alone(answer: Callable[[np.ndarray, np.ndarray], Any]) -> str:
    """The area that only each network adds.

    Args:
        answer: takes losses [n, 2], less is better, in any order, dominated ones and such beyond the corner included;
            and the corner [2]. Gives what the dominated area would lose without each network, [n], in the same order.
    """
    four, corner = np.array([[4.0, 10], [12, 4], [2, 20], [8, 8]]), np.array([15.0, 25.0])
    for case, losses, end in (
        ("Of A, B, D and F, in another order", four, corner),
        ("With C and E, which are dominated", np.vstack([four, [[5, 13], [10, 9]]]), corner),
        ("With a corner that leaves A and F outside", four, np.array([9.0, 15.0])),
        ("Of 30 networks drawn at random", np.random.default_rng(1).random((30, 2)) * 30, corner),
        ("Of two networks that are alike", np.array([[3.0, 5.0], [3.0, 5.0]]), corner),
        ("Where all are beyond the corner", four + 40, corner),
    ):
        got, want = np.asarray(answered(answer(losses.copy(), end.copy())), dtype=float), _alone(losses, end)
        if got.shape != want.shape:
            raise Wrong(f"{case}: give one number for each of the {len(want)} networks; got the shape {got.shape}.")
        if not np.allclose(got, want):
            raise Wrong(f"{case}: {_alone_slip(got, losses, end, want)}")
    return "What is dominated adds nothing, and still can cover a part of what another adds."


def _alone(losses: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """What the area would lose without each row. -> [n]."""
    rest = [pareto.hypervolume(np.delete(losses, at, axis=0), corner) for at in range(len(losses))]
    return pareto.hypervolume(losses, corner) - np.array(rest)


def _alone_slip(got: np.ndarray, losses: np.ndarray, corner: np.ndarray, want: np.ndarray) -> str:
    """What gives this in place of `want`."""
    whole, sides = pareto.hypervolume(losses, corner), np.maximum(corner - losses, 0.0)
    ahead, order = pareto.front(losses), np.argsort(losses[:, 0], kind="stable")
    of_front = np.zeros(len(losses))
    of_front[ahead] = _alone(losses[ahead], corner)
    slips = [
        (want[order], "these are the right numbers in the order of the sizes; keep the order of the rows."),
        (sides.prod(1), "a rectangle up to the corner is given there, and others cover parts of it."),
        (whole - want, "this is the area that is left without each; what is lost is asked for."),
        (want / corner.prod(), "this is the share of the whole rectangle; the area is asked for."),
        (of_front, "what is dominated comes forward where a network is gone, and covers a part of its area."),
        (-want, "what is lost is positive: the area of all less the area of the others."),
    ]
    fitting = (words for values, words in slips if np.allclose(got, values))
    at = int(np.abs(np.nan_to_num(got, nan=np.inf) - want).argmax())
    row = f"({losses[at, 0]:.4g} and {losses[at, 1]:.4g})"
    return next(fitting, f"network {at} {row} adds {want[at]:.4g} that no other covers; got {got[at]:.4g}.")
