"""What the Bayes explorer says: its controls, what they mean, its status line."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kit.explorers.controls import Action, Control, Note, Row
from kit.plots import bayes as plots
from kit.search.acquisition import ACQUISITIONS, Acquisition
from kit.search.duel import RUNS, Duel, Question, Race, View
from kit.search.surrogate import Kernel
from kit.search.trials import Trial

SEEDS = 10_000
NOISES: tuple[float, ...] = (0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1)
LENGTHS = (*NOISES, 1.5, 2)
EXPLORATIONS: tuple[float, ...] = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3, 4, 5)
MEANING = {  # of `exploration`, by its name with an acquisition function
    "xi": "xi: gain that is asked for, in standard deviations of the log-odds",
    "beta": "beta: optimism, in standard deviations over the mean",
    "": "not used: the sampled function explores",
}
WHY = {  # a place is proposed: whether the mean there is high, and whether the model is unsure
    (True, True): "the mean is high and it is still unsure",
    (True, False): "the mean is high and it is rather sure (exploitation)",
    (False, True): "it knows little (exploration)",
    (False, False): "nowhere else is more to be gained",
}


class Move(NamedTuple):
    """A trial that was asked for.

    Attributes:
        what: its cell; or a question, whose proposal is tried.
        by_machine: whether the machine proposed it.
    """

    what: int | Question
    by_machine: bool


@dataclass(frozen=True)
class Settings:
    """What the controls say, under their names, and the trials that were asked for under this seed."""

    place: float
    length: float
    noise: float
    fitted: bool
    acquisition: Acquisition
    exploration: float
    samples: int
    truth: bool
    seed: int
    played: tuple[Move, ...] = ()

    @property
    def question(self) -> Question:
        """What they ask of the model."""
        kernel = None if self.fitted else Kernel((self.length,), noise=self.noise**2)
        return Question(self.acquisition, self.exploration, kernel)


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model says of your trials, and how the race stands."""

    settings: Settings
    view: View
    race: Race

    @property
    def best(self) -> Trial:
        """The first of the best trials."""
        return max(self.view.trials, key=lambda trial: trial.value or 0)


def table(name: str, axis: Sequence[float]) -> list[Row]:
    """The controls over the values of a hyper-parameter."""
    digits = next(n for n in range(3, 18) if len({f"{value:.{n}g}" for value in axis}) == len(axis))
    labels, first = {kind.label: name for name, kind in ACQUISITIONS.items()}, ACQUISITIONS["ei"]
    written = f"{name} {{:.{digits}g}}".format
    noise = "Noise of one trial, in standard deviations of the log-odds."
    explore = "How far the acquisition function explores, as said below."
    return [
        Control(
            "place",
            "stops",
            axis[len(axis) // 2],
            "What Try here tries.",
            axis,
            text=written,
            wide=True,
            section="05, the start",
        ),
        Action("try", "Try here", "crosshairs", "Read one network at the slider's place.", "try_here"),
        Action("follow", "Follow the machine", "star", "Try what the model proposes."),
        Control(
            "length",
            "stops",
            0.15,
            "How far a trial tells of its neighbours.",
            LENGTHS,
            group="model",
            section="05, section 1",
        ),
        Control("noise", "stops", 0.05, noise, NOISES, group="model", section="05, section 2"),
        Control(
            "fitted",
            "check",
            False,
            "Fit both to the trials.",
            label="fit length and noise",
            group="model",
            section="05, section 2",
        ),
        Note("model_note"),
        Control(
            "acquisition",
            "choice",
            "ei",
            "What a trial promises.",
            labels,
            group="next trial",
            wide=True,
            section="05, section 4",
        ),
        Control(
            "exploration",
            "stops",
            first.default,
            explore,
            EXPLORATIONS,
            first.parameter,
            "next trial",
            section="05, section 4",
        ),
        Note("meaning"),
        Control(
            "samples",
            "stops",
            0,
            "How many functions are drawn from the model.",
            range(6),
            group="picture",
            section="05, section 1",
        ),
        Control(
            "truth",
            "check",
            False,
            "Show what all networks reach.",
            (),
            "reveal the measured truth",
            "picture",
            section="05, the start",
        ),
        Control(
            "seed",
            "number",
            0,
            "Decides the start and which networks are read.",
            (0, SEEDS - 1),
            section="05, the start",
        ),
        Action("new_seeds", "New seeds", "random", "Play again with other start points and other networks."),
    ]


def words(duel: Duel, answer: Answer) -> str:
    """What is found, what the model would do and why, how the race stands (HTML)."""
    view, race, settings, n = answer.view, answer.race, answer.settings, len(answer.view.trials)
    name, best, others = html.escape(duel.name), answer.best, duel.landscape.seeds - 1
    followed = sum(move.by_machine for move in settings.played)
    counts = f"{duel.start} to start with, {n - duel.start - followed} of yours, {followed} of the machine's"
    anew = "the other network" if others == 1 else f"{others} other networks"
    expected, chance = plots.expected(duel, view, settings.place).percent, plots.chance(race)[n - 1].percent
    seen, you, machine = (f"{100 * share:.1f} %" for share in (best.value or 0, race.you[-1], race.machine[-1]))
    return (
        f"<b>{n} trials</b> ({counts}), best seen: <b>{seen}</b> at {name} {best.config[duel.name]:.3g}; measured "
        f"anew, by {anew}: {you}. {_proposal(duel, answer)} At the slider's {name} {settings.place:.3g} it expects "
        f"{expected}. Race, measured anew: <b>you {you}</b>, the machine alone {machine}, random search {chance}, "
        f"mean of {RUNS}."
    )


def _proposal(duel: Duel, answer: Answer) -> str:
    """What the model would try next, and why (HTML)."""
    view, at, acquisition = answer.view, answer.view.proposal, answer.settings.acquisition
    if at is None:
        return "All cells are tried: nothing is left to propose."
    value, (loss, std) = duel.landscape.axes[0][at], view.model.posterior.predict(duel.places[:, None])
    why = WHY[bool(loss[at] <= np.quantile(loss, 0.25)), bool(std[at] >= np.median(std))]
    drawn = "the sampled function has its top, and " * (acquisition == "thompson")
    return (
        f"By {ACQUISITIONS[acquisition].label} the model proposes <b>{html.escape(duel.name)} {value:.3g}</b>, where "
        f"{drawn}{why}: it expects <b>{plots.expected(duel, view, value).percent}</b>."
    )


def kernel(duel: Duel, answer: Answer) -> str:
    """What length scale and noise are, in units of the hyper-parameter, and of accuracy near the best (HTML)."""
    model, parameter, (length,) = answer.view.model, duel.parameter, answer.view.model.posterior.kernel.lengths
    noise, low, high = math.sqrt(model.posterior.kernel.noise), parameter.low, parameter.high
    reach = f"a factor of {(high / low) ** length:.2g}" if parameter.log else f"{(high - low) * length:.2g}"
    worse, better = model.own(model.best + np.array([noise, -noise])).tolist()
    found = f"Fitted: length {length:.2g}, noise {noise:.2g}. " * answer.settings.fitted
    points = f"{50 * (better - worse):.2g} points, near the best"
    return f"{found}Length: {reach} in {html.escape(duel.name)}. Noise: {points}."
