"""A question before the answer: the reader commits to a prediction, then sees."""

from __future__ import annotations

import html
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import ipywidgets as widgets

from kit.explorers.base import bundle_with

_CSS = """<style>
.kit-prediction { border-left: 4px solid #0072B2; padding: 2px 12px 6px 12px;
  box-sizing: border-box; width: 100%; max-width: 760px; margin: 4px 0; }
.kit-prediction .widget-html-content, .kit-answer .widget-html-content {
  line-height: 1.4; white-space: normal; color: var(--jp-ui-font-color1, inherit); }
.kit-prediction .widget-radio-box label { color: var(--jp-ui-font-color1, inherit); white-space: normal; height: auto; }
.kit-prediction .widget-radio, .kit-prediction .widget-radio-box { width: auto; max-width: 100%; }
.kit-prediction .kit-note { color: var(--jp-ui-font-color2, inherit); font-size: 12px; }
.kit-prediction :focus-visible { outline: 2px solid var(--jp-brand-color1, #2196f3); outline-offset: 1px; }
</style>"""

Choice = str | float
Scale = tuple[float, float, float, str]


class Prediction(widgets.VBox):
    """A question with an answer to choose; after `Commit` the choice stays.

    Args:
        question: one sentence, plain text.
        options: two or more answers to choose from; or a scale (low, high, step, unit) for a number.
        note: a hint under the question, plain text.

    From code: set `value`, call `commit()`, read `committed`. Nothing has to be committed: `committed` is then None.

    Raises:
        ValueError: an empty question, fewer than two options or two alike, a scale with low >= high or step <= 0.
        TypeError: options that are neither.
    """

    def __init__(self, question: str, options: Sequence[str] | Scale, note: str = "") -> None:
        """Build the choice, the button and the place for the answer."""
        if not question.strip():
            raise ValueError(f"question must be a sentence; got {question!r}.")
        self.question = question
        self.committed: Choice | None = None
        self._answer: tuple[str, Choice | None] | None = None
        self._unit, self._choice = _choice(options)
        self._scale = isinstance(self._choice, widgets.FloatSlider)
        self.commit_button = widgets.Button(
            description="Commit", icon="check", tooltip="Fix this answer; it cannot be changed afterwards"
        )
        self.commit_button.on_click(lambda _: self._click())
        self._said = widgets.HTML()
        self.answer = _Answer(f"Answer to: {question}", layout={"display": "none"}).add_class("kit-answer")
        hint = f'<div class="kit-note">{html.escape(note)}</div>' if note else ""
        head = widgets.HTML(f"{_CSS}<b>Predict: {html.escape(question)}</b>{hint}")
        super().__init__([head, self._choice, self.commit_button, self._said, self.answer])
        self.add_class("kit-prediction")

    @property
    def value(self) -> Choice | None:
        """What is chosen now: an option or a number; None where nothing is chosen yet.

        Raises:
            ValueError: set to something that is no option, or outside of the scale.
            TypeError: a scale is set to something that is no number.
            RuntimeError: set after the commit.
        """
        return self._choice.value

    @value.setter
    def value(self, value: Choice) -> None:
        if self.committed is not None:
            raise RuntimeError(f"the answer {self._written(self.committed)} is committed and stays.")
        self._choice.value = self._checked("value", value)

    def commit(self) -> None:
        """Fix the choice; nothing happens where it is fixed already.

        Raises:
            ValueError: nothing is chosen yet.
        """
        if self.committed is not None:
            return
        if self.value is None:
            raise ValueError(f"choose one of {', '.join(map(repr, self._choice.options))} before committing.")
        self.committed = self.value
        self._choice.disabled = self.commit_button.disabled = True
        self._say(f"You said: <b>{html.escape(self._written(self.committed))}</b>.")
        self._show_answer()

    def reveal(self, answer_text: str, right: Choice | None = None) -> widgets.HTML:
        """Give the answer; it is shown once the reader has committed, and waits until then.

        Args:
            answer_text: plain text.
            right: the right option, or the right number on a scale; the reader is told how the prediction compares.

        Returns:
            The answer as a widget, to show it where this is called, too.

        Raises:
            ValueError: `right` is no option, or outside of the scale.
            TypeError: `right` is no number, on a scale.
        """
        self._answer = (answer_text, None if right is None else self._checked("right", right))
        self._show_answer()
        return self.answer

    def _show_answer(self) -> None:
        if self._answer is None:
            return
        text, right = self._answer
        self.answer.layout.display = None
        if self.committed is None:
            self.answer.value = "<i>The answer is shown here once you commit to your prediction.</i>"
            return
        verdict = "" if right is None else f" {html.escape(self._verdict(self.committed, right))}"
        self.answer.value = f'<div role="status" aria-live="polite"><b>Answer:</b> {html.escape(text)}{verdict}</div>'

    def _verdict(self, said: Choice, right: Choice) -> str:
        if isinstance(said, str) or isinstance(right, str):
            return "✔ You said so." if said == right else f"✘ You said {said!r}; it is {right!r}."
        off = abs(said - right)
        if off <= self._choice.step / 2:
            return f"✔ You said {self._written(said)}: as near as the scale allows."
        distance = f"{off:.6g} points" if self._unit == "%" else self._written(off)
        return f"You said {self._written(said)}: {distance} off."

    def _click(self) -> None:
        """A reader who has chosen nothing is told so; a traceback would help nobody."""
        try:
            self.commit()
        except ValueError as error:
            self._say(html.escape(str(error)[0].upper() + str(error)[1:]))

    def _say(self, text: str) -> None:
        self._said.value = f'<div role="status" aria-live="polite">{text}</div>'

    def _written(self, value: Choice) -> str:
        return value if isinstance(value, str) else f"{value:.6g} {self._unit}".strip()

    def _checked(self, argument: str, value: Choice) -> Choice:
        if not self._scale:
            if value not in self._choice.options:
                options = ", ".join(map(repr, self._choice.options))
                raise ValueError(f"{argument} must be one of {options}; got {value!r}.")
            return value
        low, high = self._choice.min, self._choice.max
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{argument} must be a number from {low:g} to {high:g}; got {value!r}.")
        if not low <= float(value) <= high:
            raise ValueError(f"{argument} must lie in {low:g} to {high:g} {self._unit}; got {value!r}.")
        return float(value)

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        """What the notebook shows: the widget, and the question as a stable text."""
        return bundle_with(super()._repr_mimebundle_(**settings), f"Prediction: {self.question}")


class _Answer(widgets.HTML):
    """HTML whose text form does not tell the answer: digits in it may differ between machines."""

    def __init__(self, title: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._title = title

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        return bundle_with(super()._repr_mimebundle_(**settings), self._title)


def _choice(options: Sequence[str] | Scale) -> tuple[str, Any]:
    """The unit, and the control: a slider for a scale, radio buttons for options."""
    if isinstance(options, str) or not isinstance(options, Sequence):
        raise TypeError(f"options must be a list of texts or (low, high, step, unit); got {options!r}.")
    label = {"description": "your answer", "style": {"description_width": "initial"}}
    if all(isinstance(option, str) for option in options):
        if len(options) < 2 or len(set(options)) < len(options):
            raise ValueError(f"options must be two or more different answers; got {list(options)}.")
        return "", widgets.RadioButtons(options=list(options), value=None, **label)
    numbers = all(isinstance(number, Real) and not isinstance(number, bool) for number in options[:3])
    if len(options) != 4 or not numbers or not isinstance(options[3], str):
        raise TypeError(f"options must be a list of texts or (low, high, step, unit); got {options!r}.")
    low, high, step = (float(number) for number in options[:3])
    if not low < high or not 0 < step <= high - low:
        raise ValueError(f"options as a scale need low < high and 0 < step <= high - low; got {options!r}.")
    decimals = max(0, -int(Decimal(str(step)).normalize().as_tuple().exponent))
    start = low + step * round((high - low) / 2 / step)
    slider = widgets.FloatSlider(
        min=low,
        max=high,
        step=step,
        value=start,
        readout_format=f".{decimals}f",
        layout={"width": "100%", "margin": "2px 0"},
        **{**label, "description": f"your answer{', ' + options[3] if options[3] else ''}"},
    )
    return options[3], slider
