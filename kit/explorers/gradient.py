"""The gradient explorer: the slope of the validation loss in the weight decay, found three ways."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from threading import Event

import torch
from torch import nn

from kit import checks, cohort, measure, models, training
from kit.compress.line import Point, score
from kit.data import Dataset
from kit.explorers import sizing
from kit.explorers.base import of_answer
from kit.explorers.controls import Action, Control, Row
from kit.explorers.marks import Mark
from kit.explorers.pinning import PIN_ROWS, Pin, PinningExplorer
from kit.measure import Estimate
from kit.plots import gradient as plots
from kit.plots.curves import Panel, counted, percent
from kit.plots.gradient import NAMES, Slope, Slopes
from kit.search import Float
from kit.search.gradient import RANGES, Differences, Implicit, Problem, Tensors, network
from kit.search.gradient.hypergradient import Solver, reverse

STOPS = tuple(float(f"{10 ** (at / 20):.2g}") for at in range(-90, -29))  # of the weight decay, 20 a decade
SPACE = Float(STOPS[0], STOPS[-1], log=True)
BACKS = (*range(8), *range(10, 100, 5), *range(100, 1000, 50), *range(1000, 10000, 500))
TERMS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60)
WIDTH = 0.2  # of finite differences, in ln(weight decay): over less, the kinks of ReLU decide
SECONDS = 10.0  # for all that a new weight decay asks for
LADDER = (100, 50, 25, 12)  # steps of a training, and samples
BLINK = 0.5  # seconds: what takes longer can be stopped
PASSES = 8  # gradient evaluations a step that a new weight decay takes, about
PIECE = 8  # networks trained at once
Key = tuple[int, float]  # seed and weight decay


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    weight_decay: float
    seed: int
    back: int
    terms: int
    solver: Solver
    damping: float
    way: str
    rate: float

    @property
    def key(self) -> Key:
        """Which network they train."""
        return self.seed, self.weight_decay


@dataclass(frozen=True)
class Answer:
    """The network at a weight decay, and all slopes there as `plots.gradient` has them; what is not computed lacks."""

    settings: Settings
    point: Point
    found: Slopes

    @property
    def at(self) -> dict[str, int]:
        """The place of what the controls ask for; conjugate gradients may have ended before."""
        wanted = {"unrolled": self.settings.back, "implicit": self.settings.terms - 1, "differences": 0}
        return {way: min(wanted[way], len(rows) - 1) for way, rows in self.found.items()}

    @property
    def chosen(self) -> dict[str, Slope]:
        """What the controls ask for, of each way."""
        return {way: self.found[way][at] for way, at in self.at.items()}

    @property
    def exact(self) -> float:
        """The slope through all steps: the derivative of this training."""
        return self.found["unrolled"][-1].value


class GradientExplorer(PinningExplorer[Settings, Answer]):
    """Take the slope of the validation loss in the weight decay, three ways, and lay it on the curve as a tangent.

    The curve is of networks really trained, all from the same first weights, by full-batch gradient descent with
    momentum 0.9. At your weight decay the tangents show what each method finds: going back through the last steps of
    training, the implicit function theorem with so many terms, and two more trainings a little to the side. The exact
    slope is the one through all steps. *Step* walks downhill by the method that you choose.

    Args:
        model: as `search.gradient.network` takes it; its weights are where each training begins. Copied, never changed.
        dataset: any `Dataset` whose samples it takes. Train fits, validation measures, test is not read.
        weight_decay: where the slider begins, one of `STOPS`.
        steps: of one training; 100 if there is time.
        lr: learning rate, 0.001 to 1; where it is too large for the largest weight decay, the training diverges.
        samples: training samples, the first ones; 100 if there is time (or all, where there are fewer): with few of
            them weight decay matters.
        seconds: for a new weight decay. Where it would take longer on this machine, what of steps and samples is left
            open is made smaller, and the words say so. None takes all.

    Controls: `weight_decay`, `back`, `terms`, `solver`, `damping`, `way` and `rate` (of a step downhill), `seed` (of
    the first weights, 0 for the model's own; shown for a plain `MLP`), `pin_name`; buttons `step_button`, `pin_button`,
    `reset_button`, `stop_button`. `step()` does the same as its button. After `wait()`: `loss`, `slopes` and `exact`
    (nats for each unit of ln(weight decay)), `found` (each slope with its cost, for growing work), `trail`, `model`.
    After `wait_curves()`: `curve`.

    Raises:
        ValueError: an argument out of range, or a model that has no such slope.
        TypeError: an argument of another kind.
    """

    _settings, _first, _curves, _noun = Settings, ("loss",), ("loss",), "trainings"
    _technique = "search"
    loss: Estimate = of_answer("point.loss", "Mean validation loss, nats, with its interval over samples.")
    exact: float = of_answer("exact", "The slope through all steps (waits for it).")
    found: Mapping[str, Sequence[Slope]] = of_answer("found", "Of each way the slopes for growing work (waits).")

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        *,
        weight_decay: float = 0.002,
        steps: int | None = None,
        lr: float = 0.2,
        samples: int | None = None,
        seconds: float | None = SECONDS,
    ) -> None:
        training.check_fits(model, dataset)
        sizing.check_seconds(seconds)
        for name, value, least in (("steps", steps, 1), ("samples", samples, 2)):
            if value is not None:
                checks.whole(name, value, least)
        if not RANGES["lr"].holds(checks.number("lr", lr)):
            raise ValueError(f"lr must be {RANGES['lr']}; got {lr!r}.")
        self.dataset, self._start, self._lr = dataset, training.copy_of(model), lr
        plain = all(each.requires_grad and each.dtype == torch.float32 for each in model.parameters())
        self._family = type(model) is models.MLP and plain  # then a cohort takes the very same steps
        self._problems: dict[int, Problem] = {}  # by seed
        self._curve: dict[Key, Point | None] = {}  # None where the training diverged
        self._known: dict[Key, tuple[Tensors, Slopes]] = {}  # where each training ends, and the slopes there
        self._solved: dict[tuple[Key, Solver, float], Sequence[Slope]] = {}
        self._walked: tuple[Key, ...] = ()
        plans = dict.fromkeys((steps or rung, min(samples or rung, len(dataset.train))) for rung in LADDER)
        self._sized = self._size(list(plans), seconds)
        self.here = Mark("point")
        call = {"weight_decay": weight_decay, "steps": self._steps, "lr": lr, "samples": len(self._part.train)}
        title, rows = f"GradientExplorer: {type(model).__name__} on {dataset.name}", _table(weight_decay, self._steps)
        super().__init__(title, rows, (("model", "dataset"), call), marks=[self.here])
        if not self._family:
            self.seed.max, self.seed.layout.display = 0, "none"
        self._move()

    def _size(self, plans: Sequence[tuple[int, int]], seconds: float | None) -> str:
        """Take the first plan that is in time; in words, which one."""
        for plan in plans:
            self._steps, self._part = plan[0], replace(self.dataset, train=self.dataset.train.first(plan[1]))
            self._problems.clear()
            problem, passes = self._problem(0), PASSES * self._steps
            work = passes * plan[1] * 3 * measure.flops(self._start, self._part.train.inputs[:1])
            self._slow = not sizing.sure(work, BLINK)
            if seconds is None or sizing.sure(work, seconds):
                break
            problem.path(problem.hyper, steps=1)  # the first one takes longer
            began = time.perf_counter()
            problem.path(problem.hyper, steps=1)
            if passes * (time.perf_counter() - began) <= seconds:
                break
        said = f"{plan[0]} steps", f"{plan[1]:,} training {self.dataset.noun}"
        return sizing.sentence(seconds, said if plan != plans[0] else (), " a weight decay")

    # -- what a script or a notebook cell uses -------------------------------------------------------------------------

    @property
    def model(self) -> nn.Module:
        """The network trained at the slider's weight decay (waits for it)."""
        return self._model(self._latest())

    @property
    def slopes(self) -> dict[str, float]:
        """By "unrolled", "implicit", "differences": nats for each unit of ln(weight decay) (waits for them)."""
        return {way: slope.value for way, slope in self._latest().chosen.items()}

    @property
    def curve(self) -> dict[float, Estimate]:
        """Validation loss by weight decay, as far as it is measured: whole after `wait_curves()`."""
        return {point.t: point.loss for point in self._points(self.seed.value)}

    @property
    def trail(self) -> tuple[float, ...]:
        """The weight decays that a walk came through, up to the slider's; empty where the slider is elsewhere."""
        places = [at for at, key in enumerate(self._walked, start=1) if key == self.settings.key]
        return tuple(decay for _, decay in self._walked[: max(places, default=0)])

    def step(self) -> None:
        """Walk downhill: ln(weight decay) moves by the slope of `way` times `rate`, to the nearest stop.

        Waits its turn in the worker; where the step is shorter than half of the way to the next stop, it says so.
        """
        self._request(self._walk, keep=True)

    # -- in the worker -------------------------------------------------------------------------------------------------

    def _problem(self, seed: int) -> Problem:
        if seed not in self._problems:
            self._problems[seed] = network(self._network(seed), self._part, steps=self._steps, lr=self._lr)
        return self._problems[seed]

    def _network(self, seed: int, weights: Tensors | None = None) -> nn.Module:
        """The network before its training, or with the weights that it ended at."""
        model = training.copy_of(self._start)
        if seed:
            models.initialise(model, seed)
        with torch.no_grad():
            for name, weight in (weights or {}).items():
                model.get_parameter(name).copy_(weight)
        return model

    def _measure(self, key: Key, weights: Tensors, cancel: Event) -> Point | None:
        """Put a trained network on the curve; None where its loss is no finite number."""
        try:
            point = score(self._network(key[0], weights), self._part.validation, key[1], cancel)
        except ValueError:
            point = None
        self._curve[key] = point
        return point

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        if (key := settings.key) not in self._known:
            self._train(settings, cancel)
        (weights, found), point = self._known[key], self._curve[key]
        assert point is not None
        return Answer(settings, point, {**found, "implicit": self._solve(settings, weights, cancel)})

    def _train(self, settings: Settings, cancel: Event) -> None:
        """Train and show where it ends; then the slopes, the dearest last."""
        problem, key = self._problem(settings.seed), settings.key
        hyper = problem.coordinates({"weight_decay": key[1]})
        self._busy(self._slow)
        path = problem.path(hyper, cancel=cancel)
        weights, size = path[-1].weights, 2 * sum(map(torch.numel, path[-1].weights.values()))
        if (point := self._measure(key, weights, cancel)) is None:
            raise training.Diverged("the validation loss is no finite number; take a smaller lr.")
        self._show(Answer(settings, point, {}))
        back = [float(slope["weight_decay"]) for slope in reverse(problem, hyper, path, cancel=cancel)]
        if not math.isfinite(back[-1]):
            raise training.Diverged("the slope through all steps is no finite number; take a smaller lr.")
        unrolled = [Slope(value, 2 * at, at * size) for at, value in enumerate(back)]
        found = {"unrolled": unrolled, "implicit": self._solve(settings, weights, cancel)}
        self._show(Answer(settings, point, found))
        rival = Differences(WIDTH).at(problem, hyper, path, cancel=cancel)
        slope = Slope(float(rival.slope["weight_decay"]), rival.cost, rival.held)
        self._known[key] = weights, {**found, "differences": [slope]}

    def _solve(self, said: Settings, weights: Tensors, cancel: Event) -> Sequence[Slope]:
        """Slopes after 1, 2, 3 ... terms, as long as they are finite."""
        if (key := (said.key, said.solver, said.damping)) not in self._solved:
            self._busy(self._slow)
            problem = self._problem(said.seed)
            hyper, state = problem.coordinates({"weight_decay": said.weight_decay}), problem.begin()
            way, held = Implicit(TERMS[-1], said.solver, said.damping), 4 * sum(map(torch.numel, weights.values()))
            with problem.one_thread():
                slopes = way.slopes(problem, hyper, [state._replace(weights=weights)], cancel=cancel)
                values = list(takewhile(math.isfinite, (float(slope()["weight_decay"]) for slope in slopes)))
            if not values:
                raise training.Diverged("the implicit slope is no finite number; take more damping.")
            first = 2 * (said.solver == "cg") + 2  # the series begins with a term that needs no product
            self._solved[key] = [Slope(value, first + 2 * at, held) for at, value in enumerate(values)]
        return self._solved[key]

    def _walk(self, cancel: Event) -> None:
        """One step downhill."""
        answer = self._computed(said := self.settings, cancel)
        target = math.log(said.weight_decay) - said.rate * answer.chosen[said.way].value
        to = min(STOPS, key=lambda stop: abs(math.log(stop) - target))
        with self._lock:
            if self.settings != said:  # a hand has gone elsewhere meanwhile
                return
            if to != said.weight_decay:
                self._walked = tuple((said.seed, decay) for decay in (*(self.trail or [said.weight_decay]), to))
                self.set(weight_decay=to)
                return
        self._show(answer)
        self._say(f"The step is too short to reach another stop: the walk ends here. {self._said(answer)}")

    def _points(self, seed: int) -> list[Point]:
        return [point for stop in STOPS if (point := self._curve.get((seed, stop))) is not None]

    def _missing(self, answer: Answer) -> tuple[Sequence[Key], int]:
        keys = [(answer.settings.seed, stop) for stop in sizing.coarse_first(STOPS)]
        return [key for key in keys if key not in self._curve], len(keys)

    def _grow(self, answer: Answer, missing: Sequence[Key], cancel: Event) -> None:
        """Train the next networks of the curve: several at once where a cohort takes them."""
        if not self._family:
            problem, key = self._problem(missing[0][0]), missing[0]
            try:
                path = problem.path(problem.coordinates({"weight_decay": key[1]}), cancel=cancel)
            except training.Diverged:
                self._curve[key] = None
            else:
                self._measure(key, path[-1].weights, cancel)
            return
        keys, begin, train = missing[:PIECE], self._network(answer.settings.seed), self._part.train
        members = [cohort.Member(lr=self._lr, weight_decay=decay) for _, decay in keys]
        made = cohort.Cohort(begin, members, start=[begin] * len(keys))
        cohort.fit(made, train, epochs=self._steps, batch_size=len(train), optimiser="sgd", cancel=cancel)
        for key, model in zip(keys, made.models(), strict=True):
            self._measure(key, dict(model.named_parameters()), cancel)

    # -- what is shown -------------------------------------------------------------------------------------------------

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        said = self.settings if answer is None else answer.settings
        here, found, at = (None, {}, {}) if answer is None else (answer.point, answer.found, answer.at)
        trail = [point for stop in self.trail if (point := self._curve.get((said.seed, stop))) is not None]
        trained = f"{counted(self._steps, 'step')} on {len(self._part.train):,} {self.dataset.noun}"
        return {
            "loss": lambda: plots.loss_panel(self._points(said.seed), here, found, at, trail, SPACE, trained),
            "slopes": lambda: plots.slopes_panel(found, at, max(self._steps, TERMS[-1])),
            "cost": lambda: plots.cost_panel(found, at),
        }

    def _preview(self, settings: Settings) -> None:
        """The mark moves at once where the curve is known."""
        if (point := self._curve.get(settings.key)) is not None:
            self.here.values = plots.place(point)

    def _here(self, answer: Answer, settings: Settings) -> list[float]:
        return plots.place(answer.point)

    def _difference(self, kept: Answer, answer: Answer) -> Estimate:
        return Estimate.from_pairs(*(each.point.right.double().tolist() for each in (answer, kept)))

    def _clicked(self, figure: str, curve: str, x: float, y: float) -> None:
        """Go to a point of the curve."""
        if (figure, curve) == ("loss", plots.TRAINED) and x in STOPS:
            self.set(weight_decay=x)

    def _model(self, answer: Answer) -> nn.Module:
        return self._network(answer.settings.seed, self._known[answer.settings.key][0])

    def _pin(self, answer: Answer) -> Pin:
        (seed, decay), model = answer.settings.key, self._model(answer)
        record = {"weight_decay": decay, "seed": seed, "steps": self._steps, "lr": self._lr}
        name = f"{type(model).__name__}, weight decay {decay:g}" + f", seed {seed}" * bool(seed)
        profile = measure.profile(model, self.dataset.validation)
        return Pin(name, profile, record | {"samples": len(self._part.train)})

    def _words(self, answer: Answer) -> str:
        said, loss, right = answer.settings, answer.point.loss, answer.point.accuracy
        parts = [
            f"<b>Weight decay {said.weight_decay:g}: validation loss {loss.value:.3f} nats</b> ({loss.low:.3f} to "
            f"{loss.high:.3f}, 95 %, {loss.n:,} {self.dataset.noun}), {right.percent} right."
        ]
        if answer.found and not answer.exact:
            parts.append("Here it does not depend on the weight decay.")
        elif answer.found:
            back, of = answer.at["unrolled"], answer.at["implicit"] + 1
            names = {
                "unrolled": f"unrolling {'all ' * (back == self._steps)}{counted(back, 'step')}",
                "implicit": f"{f'{of} of ' * (of < said.terms)}{counted(said.terms, 'implicit term')}",
                "differences": NAMES["differences"],
            }
            ways, costs = answer.chosen, ", ".join(f"{slope.cost:,}" for slope in answer.chosen.values())
            found = ", ".join(f"<b>{_share(ways[way].value / answer.exact)}</b> by {names[way]}" for way in ways)
            parts += [
                f"More weight decay {'raises' if answer.exact > 0 else 'lowers'} the loss: slope <b>{answer.exact:+.2g}"
                f"</b> nats a unit of ln(weight decay). Found of it: {found}, for {costs} gradients."
            ]
            rival = ways.get("differences")
            if rival and abs(rival.value - answer.exact) > loss.value:
                parts.append("<b>The training is unstable here: take a smaller lr.</b>")
        if right.low <= (chance := training.chance(self.dataset.validation.labels)):
            parts.append(f"<b>It only guesses: its interval holds chance ({100 * chance:.0f} %).</b>")
        points = self._points(said.seed)
        if len(points) == len(STOPS):
            low = min(points, key=lambda point: point.loss.value)
            less = Estimate.from_values((answer.point.losses - low.losses).tolist())
            below = f"at {low.t:g}, {less.value:.3f} below this ({less.low:.3f} to {less.high:.3f}, paired)"
            parts.append(f"The curve is lowest {'here' if low.t == said.weight_decay else below}.")
        return " ".join([*parts, *[self._sized] * bool(self._sized), *self._trouble])


def _share(found: float) -> str:
    return "the wrong sign" if found < 0 else percent(round(100 * found, 1)) if found < 10 else "over 1000 %"


def _table(decay: float, steps: int) -> list[Row]:
    backs = (*(back for back in BACKS if back < steps), steps)
    train, unrolled, implicit, walk = (
        partial(Control, group=group, section=f"06, section {number}")
        for group, number in (("train", 1), ("unrolled slope", 2), ("implicit slope", 3), ("walk downhill", 6))
    )
    back = "Steps of training that the unrolled slope goes back through, last first."
    damping = "Added to the curvature, so that flat and negative directions do not decide."
    terms = "Products with the Hessian. Conjugate gradients end before where they meet no positive curvature."
    solver = "How to solve: by conjugate gradients, or by a Neumann series, whose rate is the learning rate."
    way, rate = "Whose slope a step follows.", "A step moves ln(weight decay) by the slope times this rate."
    solvers, ways = {"conj. grad.": "cg", "Neumann": "neumann"}, {name: way for way, name in NAMES.items()}
    return [
        train("weight_decay", "stops", decay, "The weight decay of a training.", STOPS, "weight decay", wide=True),
        train("seed", "number", 0, "Decides the first weights; 0 takes the model's own.", (0, 9999)),
        unrolled("back", "stops", max(each for each in backs if each <= 20), back, backs, "steps back"),
        implicit("terms", "stops", 10, terms, TERMS),
        implicit("solver", "toggle", "cg", solver, solvers),
        implicit("damping", "stops", 0.01, damping, (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
        walk("way", "choice", "unrolled", way, ways, "slope"),
        walk("rate", "stops", 5.0, rate, (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)),
        Action("step", "Step downhill", "level-down", "Move the weight decay against that slope."),
        *PIN_ROWS,
    ]
