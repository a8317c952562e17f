"""Many machines: Ray's actors against Ray Tune, two workers against one, and where the one who asks stops scaling."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from kit import cluster, cores, data, models, training
from kit.cluster import Span
from kit.data import Dataset
from kit.search import Bayes, Config, Float, Method, Random, Space, Study, networks
from tests.benchmarks.registry import Say, UnavailableError
from tests.benchmarks.rows import Row, Target

SPACE = Space({"lr": Float(1e-4, 1e-1, log=True), "beta1": Float(0.5, 0.99)})
OURS, TUNER = 400, 10  # trivial trials: of the kit's, and of Ray Tune, which needs seconds for each
TRAININGS, EPOCHS, ROUNDS = 24, 40, 3
COHORT = 32
KNOWN, TIMED = (100, 1000), 20  # trials that a study has, and those that are then asked for and told
WORKERS, MINUTES, MANY = 1000, 3.0, 5000


def benchmark(say: Say) -> Iterator[Row]:
    """Rows of the four parts; all but the one on paper need Ray."""
    yield _on_paper(say)
    if find_spec("ray") is None:
        raise UnavailableError("Ray is not installed: the extra cluster.")
    began = time.perf_counter()
    with cluster.local(workers=2):
        say(f"Ray starts in {time.perf_counter() - began:.1f} s")
        yield _against_tune(say)
        yield _two_against_one(say)
        yield _cohorts(say)


class Trained:
    """A training of its own for each configuration, the ordinary loop."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __call__(self, config: Config) -> float:
        network = models.MLP((64, 64, 10))
        training.fit(network, self.dataset, epochs=EPOCHS, lr=config["lr"])
        counts = training.evaluate(network, self.dataset.validation)
        return counts.correct / counts.total


def trivial(config: Config) -> float:
    """As good as nothing."""
    return config["lr"]


def _against_tune(say: Say) -> Row:
    from ray import tune

    began = time.perf_counter()
    spans = _run(trivial, OURS, 2)
    ours = (time.perf_counter() - began) / OURS
    say(
        f"{OURS} trivial trials: {1000 * ours:.1f} ms each with the start of the workers, {_each(spans):.1f} ms without"
    )
    method = cluster.RayMethod(Random())
    settings = tune.TuneConfig(metric="loss", mode="min", search_alg=method, num_samples=TUNER)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            lambda config: {"loss": trivial(config)},
            param_space=cluster.to_ray(SPACE),
            tune_config=settings,
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        began = time.perf_counter()
        tuner.fit()
        rival = (time.perf_counter() - began) / TUNER
    assert [each.config for each in method.study.trials] == [
        each.config for each in Study(SPACE).run(trivial, Random(), budget=TUNER).trials
    ]
    what = f"a trivial trial, workers' start included: ray.tune.Tuner ({TUNER} trials) / reused actors ({OURS})"
    return Row.of("cluster.trial", what, 1000 * ours, 1000 * rival, "ms", Target("at least", 50))


def _two_against_one(say: Say) -> Row:
    objective = Trained(data.digits())
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for number in range(ROUNDS):
        for workers, taken in seconds.items():
            taken.append(_makespan(_run(objective, TRAININGS, workers)))
        say(f"round {number + 1} of {ROUNDS}: " + ", ".join(f"{k} workers {s[-1]:.1f} s" for k, s in seconds.items()))
    one, two = (statistics.median(seconds[workers]) for workers in (1, 2))
    what = f"{TRAININGS} trainings: one worker / two, from the first trial's begin to the last one's end"
    return Row.of("cluster.speedup", what, two, one, "s", Target("at least", 1.7))


def _cohorts(say: Say) -> Row:
    objective = networks.Networks(data.digits(), epochs=EPOCHS)
    seconds = {}
    for batch in (1, COHORT):
        seconds[batch] = _makespan(_run(objective, 2 * COHORT, 2, batch))
        say(f"{2 * COHORT} networks, {batch} to a call: {seconds[batch]:.2f} s")
    what = f"{2 * COHORT} MLPs on two workers: one to a call / {COHORT} as a cohort"
    return Row.of("cluster.cohort", what, seconds[COHORT], seconds[1], "s", Target("at least", 2))


def _on_paper(say: Say) -> Row:
    """What asking and telling takes here, and from it how long a thousand workers would take in virtual time."""
    methods: dict[str, Method] = {"Random": Random(), "Bayes": Bayes()}
    measured = {"in no time": [0.0, 0.0]}
    with tempfile.TemporaryDirectory() as folder:
        for name, method in methods.items():
            for place, path in (("in memory", None), ("in a file", Path(folder))):
                files = [path and path / f"{name}{known}.sqlite" for known in KNOWN]
                taken = [_driver(method, known, file) for known, file in zip(KNOWN, files, strict=True)]
                measured[f"by {name} {place}"] = taken
                rates = " and ".join(f"{1 / each:.1f} with {known}" for known, each in zip(KNOWN, taken, strict=True))
                say(f"{name} {place}: {rates} known are asked for and told in a second")
                say(f"  workers that keep it busy by trials of {MINUTES:g} minutes: {60 * MINUTES / max(taken):.0f}")
    makespans = {}
    for name in ("in no time", "by Random in a file", "by Bayes in a file"):
        first, last = measured[name]
        slope = (last - first) / (KNOWN[1] - KNOWN[0])
        spans = cluster.simulate(
            Study(SPACE),
            trivial,
            Random(),
            budget=MANY,
            duration=lambda config, epochs: 60 * MINUTES * (0.5 + SPACE.encode(config)[0]),
            workers=WORKERS,
            overhead=lambda number, first=first, slope=slope: max(0.0, first + slope * (number - KNOWN[0])),  # type: ignore[misc]
        )
        makespans[name] = _makespan(spans)
        work = sum((span.end or 0) - span.start for span in spans) / makespans[name]
        say(f"{MANY} trials asked {name}: {work:.0f} of {WORKERS} workers work, on average")
    what = (
        f"{MANY} trials of {MINUTES:g} minutes on {WORKERS} workers, simulated: asked in no time / by Random in a file"
    )
    ours, rival = makespans["by Random in a file"], makespans["in no time"]
    return Row.of("cluster.thousand", what, ours, rival, "s", Target("at least", 0.9))


def _driver(method: Method, known: int, path: Path | None) -> float:
    """Seconds to ask for a trial and to tell it, where so many are known."""
    study = Study(SPACE, path=path)
    study.run(trivial, Random(1), budget=known)
    with cores.one_thread():
        began = time.perf_counter()
        for _ in range(TIMED):
            trial = study.ask(method)
            assert trial is not None
            study.tell(trial.number, trivial(trial.config))
    return (time.perf_counter() - began) / TIMED


def _run(objective: object, budget: int, workers: int, batch: int | None = None) -> list[Span]:
    spans: list[Span] = []
    batch = 1 if isinstance(objective, networks.Networks) and batch is None else batch
    cluster.run(Study(SPACE), objective, Random(), budget=budget, workers=workers, batch=batch, on_span=spans.append)  # type: ignore[arg-type]
    return [span for span in spans if span.end is not None]


def _makespan(spans: list[Span] | tuple[Span, ...]) -> float:
    return max(span.end or 0 for span in spans) - min(span.start for span in spans)


def _each(spans: list[Span]) -> float:
    return 1000 * _makespan(spans) / len(spans)
