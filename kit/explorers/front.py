"""The front explorer: two objectives on a plane that is small enough to check by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event

import numpy as np

from kit.explorers.base import Explorer, of_answer
from kit.explorers.controls import Control
from kit.plots import front as plots
from kit.plots.curves import Panel
from kit.search.pareto import dominates, front, hypervolume

YOU, CORNER = "yours", np.array([15.0, 25.0])  # kB, per cent
_T = np.linspace(0, 1, 9)
POINTS = {
    "six networks": np.array([[2.0, 20], [4, 10], [5, 13], [8, 8], [10, 9], [12, 4]]),
    "convex front": np.column_stack([2 + 10 * _T, 2 + 20 * (1 - np.sqrt(_T))]),  # of ZDT1, scaled
    "hollow front": np.column_stack([2 + 10 * _T, 2 + 20 * (1 - _T**2)]),  # of ZDT2
}
SIZES, ERRORS = tuple(0.5 * at for at in range(2, 31)), tuple(float(at) for at in range(1, 26))


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    points: str
    size: float
    error: float
    weight: float
    corner: float


@dataclass(frozen=True, eq=False)
class Answer:
    """The networks on the plane, and what is asked of them; size (kB) and error (per cent), less is better in both."""

    settings: Settings
    names: tuple[str, ...]
    losses: np.ndarray  # [n, 2], yours last
    corner: np.ndarray  # [2]
    ahead: np.ndarray  # on the front, bool [n]
    volume: float  # kB x per cent
    alone: dict[str, float]  # the area lost without each of the front, where others may come forward
    chosen: tuple[int, ...]  # of each of `plots.WEIGHTS` the network with the smallest sum

    @property
    def front(self) -> tuple[str, ...]:
        """Names of the networks on the front, the smallest first."""
        order = np.argsort(self.losses[:, 0], kind="stable")
        return tuple(self.names[at] for at in order if self.ahead[at])

    @property
    def found(self) -> str:
        """The network that the weight chooses."""
        return self.names[self.chosen[plots.WEIGHTS.index(self.settings.weight)]]


class FrontExplorer(Explorer[Settings, Answer]):
    """Made-up networks by size and error: what dominates what, the area that the front dominates, what a sum finds.

    Nothing is trained: the numbers are round, so that everything can be checked by hand. A click on the large figure
    puts your network there.

    Controls: `points` (one of `POINTS`), `size` (kB) and `error` (per cent) of your network, `weight` of the error
    (that of the size is what is left of 1; both are shares of 15 kB and 25 %), `corner` (times 15 kB and 25 %); button
    `reset_button`. After `wait()`: `front` (names), `volume` (kB x per cent), `alone` (what the front would lose
    without each), `found` (by the weight).
    """

    _settings, _first = Settings, ("plane",)
    front: tuple[str, ...] = of_answer("front", "Names of the networks on the front, the smallest first.")
    volume: float = of_answer("volume", "The area that the front dominates, kB x per cent.")
    alone: dict[str, float] = of_answer(
        "alone", "The area lost without each network of the front; others may come forward."
    )
    found: str = of_answer("found", "The network whose weighted sum is the smallest.")

    def __init__(self) -> None:
        yours, one, two = "your network", "08, section 1", "08, section 2"
        rows = [
            Control("points", "choice", "six networks", "The other networks, made up.", [*POINTS], section=one),
            Control("size", "stops", 7.0, "Its size.", SIZES, group=yours, unit="kB", section=one),
            Control("error", "stops", 16.0, "Its error.", ERRORS, group=yours, unit="%", section=one),
            Control("weight", "stops", 0.5, "Weight of the error in the sum.", plots.WEIGHTS, group="ask", section=one),
            Control(
                *("corner", "stops", 1.0, "Where the area ends, times 15 kB and 25 %.", (0.6, 0.8, 1.0, 1.5, 2.0)),
                group="ask",
                section=two,
            ),
        ]
        super().__init__("FrontExplorer: two objectives by hand", rows, ((), {}), stoppable=False)
        self._move()

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        others, corner = POINTS[settings.points], settings.corner * CORNER
        losses = np.vstack([others, [settings.size, settings.error]])  # [n, 2]
        names = (*map(chr, range(ord("A"), ord("A") + len(others))), YOU)
        ahead, volume = front(losses), hypervolume(losses, corner)
        alone = {names[at]: volume - hypervolume(np.delete(losses, at, axis=0), corner) for at in np.flatnonzero(ahead)}
        sums = [(losses / CORNER) @ (1 - weight, weight) for weight in plots.WEIGHTS]
        chosen = tuple(int(each.argmin()) for each in sums)
        return Answer(settings, names, losses, corner, ahead, volume, alone, chosen)

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        if answer is None:
            nothing = np.empty((0, 2))
            return {
                "plane": lambda: plots.plane_panel((), nothing, np.empty(0, bool), CORNER, nothing, 0),
                "alone": lambda: plots.alone_panel((), (), 1.0),
                "weights": lambda: plots.weights_panel((), None),
            }
        weight, losses = answer.settings.weight, answer.losses
        chosen = losses[answer.chosen[plots.WEIGHTS.index(weight)]]
        names = [name for name in answer.front if answer.alone[name] > 0]
        alone = [answer.alone[name] for name in names]
        sizes = losses[list(answer.chosen), 0].tolist()
        return {
            "plane": lambda: plots.plane_panel(
                answer.names,
                losses,
                answer.ahead,
                answer.corner,
                _line(chosen, weight),
                answer.names.index(answer.found),
            ),
            "alone": lambda: plots.alone_panel(names, alone, 1.15 * max([*alone, 1.0])),
            "weights": lambda: plots.weights_panel(sizes, weight),
        }

    def _words(self, answer: Answer) -> str:
        above = dominates(answer.losses)
        by = [name for name, beats in zip(answer.names, above[:, -1], strict=True) if beats]
        under = [name for name, beaten in zip(answer.names, above[-1], strict=True) if beaten]
        place = f"is dominated by {_listed(by)}" if by else "is on the front"
        if under:
            place += f"{', and' if by else ' and'} dominates {_listed(under)}"
        adds = f"; of this, {answer.alone[YOU]:.1f} only by yours" if YOU in answer.alone else ""
        return (
            f"<b>Your network {place}.</b> The front is {_listed(list(answer.front))}. Up to the corner of "
            f"{answer.corner[0]:g} kB and {answer.corner[1]:g} % it dominates <b>{answer.volume:.1f} kB x %</b>{adds}. "
            f"Weight {answer.settings.weight:g} on the error, and what is left of 1 on the size, chooses "
            f"<b>{answer.found}</b>."
        )

    def _clicked(self, figure: str, curve: str, x: float, y: float) -> None:
        """Put your network there, at the nearest stops."""
        if figure == "plane":
            size, error = (min(s, key=lambda stop: abs(stop - at)) for s, at in ((SIZES, x), (ERRORS, y)))
            self.set(size=size, error=error)


def _line(point: np.ndarray, weight: float) -> np.ndarray:
    """Two ends of the line through a point on which the weighted sum is the same. -> [2, 2]."""
    along = np.array([weight, weight - 1]) * CORNER  # orthogonal to the weights
    return point + np.outer([-3, 3], along)


def _listed(names: list[str]) -> str:
    return " and ".join([*[", ".join(names[:-1])] * (len(names) > 1), *names[-1:]])
