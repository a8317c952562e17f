"""The cost explorer: what a transformer of any size would take on a named machine, and which bound holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, Self

from kit import checks, cost
from kit.cost import Bought, Bound, Hardware, Step, Storage, Transformer
from kit.explorers.base import Explorer, of_answer
from kit.explorers.controls import Control, Row
from kit.explorers.marks import Mark
from kit.plots import cost as plots
from kit.plots.cost import Phase, count, seconds
from kit.plots.curves import Panel, amount

LAYERS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 40, 48, 64, 80, 96)
WIDTHS = (64, 128, 256, 384, 512, 768, 1024, 1600, 2048, 3072, 4096, 5120, 8192, 12288)
HEADS = (1, 2, 4, 6, 8, 12, 16, 25, 32, 40, 48, 64, 80, 96, 128, 192)
CONTEXTS = (16, 32, 64, 128, 197, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
BATCHES = tuple(2**at for at in range(11))
BITS = (2, 3, 4, 5, 6, 8, 16)
ZEROS = ("none", "2:4", "50 %", "70 %", "80 %", "90 %", "95 %")
HERE = "this machine"
DIMENSIONS = ("layers", "width", "heads", "context")  # that follow the choice of a model


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    model: str
    layers: int
    width: int
    heads: int
    context: int
    batch: int
    phase: Phase
    bits: int
    zeros: str
    hardware: str


@dataclass(frozen=True, eq=False)
class Answer:
    """The network that the controls say, on the machine that they say."""

    settings: Settings
    network: Transformer
    hardware: Hardware
    storage: Storage
    steps: dict[Phase, tuple[Step, Bound]]  # an encoder has no "decode"
    batches: list[tuple[int, Step, Bound]]
    memory: dict[str, float]  # bytes by what they are for
    rows: list[Bought]

    @property
    def phase(self) -> Phase:
        """That of the controls, where the network has it."""
        return self.settings.phase if self.settings.phase in self.steps else "prefill"

    @property
    def step(self) -> Step:
        """Of the phase."""
        return self.steps[self.phase][0]

    @property
    def bound(self) -> Bound:
        """Of the phase."""
        return self.steps[self.phase][1]

    @property
    def fits(self) -> bool:
        """Whether all of it fits into the memory of the machine."""
        return sum(self.memory.values()) <= self.hardware.memory


class CostExplorer(Explorer[Settings, Answer]):
    """What a transformer of any size would take: memory, the least time a step, and what each compression would buy.

    All is arithmetic on dimensions (`kit.cost`): nothing is built, and every time is a bound, which no program can
    beat and most miss. The choice of a model sets its layers, width, heads and context; what else it has stays its
    own: with the width go the middle of the feed-forward part and the number of heads. A move of the heads alone
    takes heads away.

    Args:
        model: a `cost.Transformer` to begin with, your own or a published one.
        hardware: a `cost.Hardware` of your own to begin with; by default an H100. "this machine" is measured when it
            is chosen, which takes a second or two.

    Controls: `model`, `layers`, `width`, `heads`, `context` (tokens), `batch` (texts at once), `phase` ("decode": one
    token more for each text; "prefill": read all of it at once), `bits`, `zeros` (where pruned weights are),
    `hardware`; button `reset_button`. After `wait()`: `network`, `bound` and `step` of the phase, `memory` (bytes by
    what they are for), `fits`, `rows` (what each compression would buy).

    Raises:
        TypeError: no `cost.Transformer`, or no `cost.Hardware`. `cost.compressions` answers for a `ConvNet`.
        ValueError: hardware without a rate for 16 bits.
    """

    _settings, _first = Settings, ("roofline",)
    network: Transformer = of_answer("network", "The network that the controls say (waits for it).")
    bound: Bound = of_answer("bound", "The least time of a step of the phase (waits for it).")
    step: Step = of_answer("step", "FLOPs and bytes of a step of the phase (waits for it).")
    memory: dict[str, float] = of_answer("memory", "Bytes by what they are for (waits for it).")
    fits: bool = of_answer("fits", "Whether all of it fits into the machine's memory (waits for it).")
    rows: list[Bought] = of_answer("rows", "What each compression would buy (waits for it).")

    def __init__(self, model: Transformer = cost.LLAMA_7B, *, hardware: Hardware = cost.H100) -> None:
        checks.instance("model", model, Transformer, "a cost.Transformer")
        checks.instance("hardware", hardware, Hardware, "a cost.Hardware")
        hardware.rate(16)
        self._models = {each.name: each for each in (*cost.TRANSFORMERS, model)}
        self._machines = {each.name: each for each in (*cost.MACHINES, hardware)}
        self._now = Mark("point")
        arguments = ["model"] * (model != cost.LLAMA_7B) + ["hardware=hardware"] * (hardware != cost.H100)
        rows = _table(model, list(self._models), [HERE, *self._machines], hardware.name)
        title = "CostExplorer: cost on paper"
        super().__init__(title, rows, (arguments, {}), marks=[self._now], stoppable=False)
        self._move()

    def set(self, **values: Any) -> Self:
        """Move several controls as one; a `model` brings its layers, width, heads and context where none are given.

        Raises:
            AttributeError, ValueError: as for any explorer.
        """
        named = [each for name, each in self._models.items() if name == values.get("model")]
        return super().set(**{**(_dimensions(named[0]) if named else {}), **values})

    def _tells(self, name: str, value: Any) -> bool:
        return super()._tells(name, value) or (name in DIMENSIONS and self.model.value != self._starts["model"])

    def _adjust(self, moved: str) -> None:
        base = self._models[self.model.value]
        if moved == "model":
            for name, value in _dimensions(base).items():
                getattr(self, name).value = value
        elif moved == "width":  # heads keep their width
            wanted = base.heads * self.width.value / base.width
            self.heads.value = min(self.heads.stops, key=lambda stop: abs(stop - wanted))

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        if settings.hardware == HERE and HERE not in self._machines:
            self._say("Measuring what this machine can do: a second or two.")
            self._machines[HERE] = cost.here()
        hardware, network = self._machines[settings.hardware], resized(self._models[settings.model], settings)
        group, (batch, tokens) = 128 * (settings.bits < 8), (settings.batch, settings.context)
        plain = Storage(settings.bits, group)
        storage = zeroed(plain, settings.zeros)
        how = (tokens, storage, hardware)
        steps: dict[Phase, Step] = {"prefill": network.prefill(batch, *how)}
        walk = list[tuple[int, Step]]()
        if network.decoder:
            steps["decode"] = network.decode(batch, *how)
            walk = [(texts, network.decode(texts, *how)) for texts in BATCHES]
        limits = {phase: (step, cost.bound(step, hardware)) for phase, step in steps.items()}
        batches = [(texts, step, cost.bound(step, hardware)) for texts, step in walk]
        rows = cost.compressions(network, hardware, batch=batch, context=tokens, storage=plain)
        memory = needed(
            network,
            storage.in_memory(sparse=hardware.sparse),
            limits["prefill"][0].bits,
            batch,
            tokens,
            "decode" in steps and settings.phase == "decode",
        )
        return Answer(settings, network, hardware, storage, limits, batches, memory, rows)

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        if answer is None:
            return {
                "roofline": lambda: plots.roofline_panel(None, {}, ()),
                "memory": lambda: plots.memory_panel({}, None),
                "bought": lambda: plots.bought_panel((), "decode"),
            }
        return {
            "roofline": lambda: plots.roofline_panel(answer.hardware, answer.steps, answer.batches),
            "memory": lambda: plots.memory_panel(answer.memory, answer.hardware.memory),
            "bought": lambda: plots.bought_panel(answer.rows, answer.phase),
        }

    def _draw_marks(self, answer: Answer) -> None:
        self._now.values = self._here(answer, answer.settings)

    def _here(self, answer: Answer, settings: Settings) -> list[float]:
        return plots.place(answer.step, answer.bound)

    def _words(self, answer: Answer) -> str:
        network, hardware, asked = answer.network, answer.hardware, answer.settings
        need = sum(answer.memory.values())
        verdict = "fits into" if answer.fits else "<b>does not fit</b> into"
        weights = amount(need - answer.memory["cache"] - answer.memory["activations"], "B")
        zeros = f" with {asked.zeros} zeros" * (asked.zeros != "none")
        said = [
            f"<b>{count(network.parameters)} parameters, {weights}</b> in {asked.bits} bits{zeros}; with cache and "
            f"activations {amount(need, 'B')}, which {verdict} memory: {hardware.name} has "
            f"{amount(hardware.memory, 'B')}."
        ]
        texts = f"{asked.batch:,} texts" if asked.batch > 1 else "one text"
        limit, by = answer.bound, {"bandwidth": "memory bandwidth", "compute": "compute"}[answer.bound.by]
        if answer.phase == "decode":
            what = f"Writing one more token for {texts}"
            why = (
                "all weights and the cache are read for it"
                if limit.by == "bandwidth"
                else "the texts share the weights"
            )
        else:
            what = f"Reading {asked.context:,} tokens of {texts} at once"
            why = "all tokens share the weights" if limit.by == "compute" else "few tokens share the weights"
        ends = f" ({seconds(limit.low)} to {seconds(limit.high)})" * (limit.high > limit.low)
        said.append(f"{what} takes <b>at least {seconds(limit.seconds)}</b>{ends}: bound by <b>{by}</b>, since {why}.")
        if answer.phase == "decode":
            turn = network.turning_batch(hardware, asked.context, answer.storage)
            said.append(
                "More texts at once never make it bound by compute: each brings a cache to read."
                if turn is None
                else f"From {turn:,.0f} texts at once it is bound by compute."
            )
        elif asked.phase == "decode":
            said.append("It is an encoder, which writes no tokens.")
        better = {each.name: each for each in answer.rows}.get("4 bits")
        if better is not None:
            took = better.decode if answer.phase == "decode" and better.decode else better.prefill
            said.append(f"4 bits without zeros: {amount(better.memory, 'B')}, {seconds(took.seconds)}.")
        if asked.zeros != "none" and (asked.zeros != "2:4" or not hardware.sparse):
            said.append(
                f"The zeros buy no time here: only the file shrinks, to {amount(network.bytes(answer.storage), 'B')}."
            )
        said.append(f"Bounds, no measurements: {_source(hardware)}. Accuracy is not in it.")
        return " ".join(said)


def resized(base: Transformer, settings: Settings) -> Transformer:
    """A network with the sliders' dimensions, and all else of `base`: heads as wide, the middle in proportion."""
    kv_heads = base.kv_heads and max(1, round(settings.heads * base.kv_heads / base.heads))
    return replace(
        base,
        layers=settings.layers,
        width=settings.width,
        heads=settings.heads,
        kv_heads=kv_heads,
        head_width=base.head_width or base.width // base.heads,
        hidden=max(1, round(base.hidden * settings.width / base.width)),
        context=settings.context,
    )


def zeroed(storage: Storage, zeros: str) -> Storage:
    """The storage with one of `ZEROS`."""
    if zeros == "none":
        return storage
    if zeros == "2:4":
        return replace(storage, pattern="2:4", sparsity=0.5)
    return replace(storage, pattern="anywhere", sparsity=float(zeros.split()[0]) / 100)


def needed(
    network: Transformer, storage: Storage, bits: int, batch: int, tokens: int, decoding: bool
) -> dict[str, float]:
    """Bytes in memory by what they are for; activations are those of one token a text where it is `decoding`."""
    parts = network.parts
    tables = storage.dense.bytes(parts["embeddings"] + parts["head"])
    rest = network.bytes(storage) - tables
    attention = rest * parts["attention"] / (parts["attention"] + parts["feed-forward"])
    return {
        "embeddings": tables,
        "attention": attention,
        "feed-forward": rest - attention,
        "cache": network.cache(tokens, batch, storage.activations),
        "activations": network.activations(1 if decoding else tokens, batch, storage.activations),
    }


def _dimensions(model: Transformer) -> dict[str, int]:
    return {name: getattr(model, name) for name in DIMENSIONS}


def _source(hardware: Hardware) -> str:
    if hardware.name == HERE:
        return f"this machine's rates are {hardware.source}"
    return (
        f"the rates of {hardware.name} are {'from data sheets' if hardware in cost.MACHINES else 'those that you gave'}"
    )


def _table(model: Transformer, models: list[str], machines: list[str], machine: str) -> list[Row]:
    def stops(name: str, known: tuple[int, ...], words: str, group: str, **more: Any) -> Control:
        own = {getattr(each, name) for each in (*cost.TRANSFORMERS, model)} if name in DIMENSIONS else set()
        start = getattr(model, name, None) if name in DIMENSIONS else known[0]
        values = tuple(sorted({*known, *own}))
        return Control(name, "stops", start, words, values, group=group, text="{:,}".format, **more)

    bits = "Bits of each weight; below 8 with a scale for each 128, and computed in 16."
    when = "One more token for each text, or all of a text at once."
    start = "A network to begin with; it sets the four sliders below."
    where = "The machine; this one is measured when it is chosen."
    rows = [
        Control("model", "choice", model.name, start, models, group="network"),
        stops("layers", LAYERS, "Blocks of attention and feed-forward.", "network"),
        stops("width", WIDTHS, "Numbers a token between the blocks.", "network"),
        stops("heads", HEADS, "Heads of attention; each is as wide as the model's own.", "network"),
        stops("context", CONTEXTS, "Tokens of a text: read at once, or so far.", "work", unit="tokens"),
        stops("batch", BATCHES, "Texts at once.", "work", unit="texts"),
        Control("phase", "toggle", "decode", when, ["decode", "prefill"], group="work"),
        replace(stops("bits", BITS, bits, "stored"), start=16, unit="bits"),
        Control("zeros", "choice", "none", "Which of the layers' weights are zero.", list(ZEROS), group="stored"),
        Control("hardware", "choice", machine, where, machines, group="machine"),
    ]
    return [replace(row, section=f"10, section {8 if row.group == 'network' else 9}") for row in rows]
