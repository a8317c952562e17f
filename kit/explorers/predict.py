"""A question before the answer: the reader commits to a prediction, then sees."""

from __future__ import annotations

import html
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import ipywidgets as widgets

from kit import checks
from kit.explorers.layout import TitledHTML, bundle_with, spoken
from kit.explorers.marks import style_tag

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
        TypeError: options that are neither, or a question or note that is no text.
    """

    def __init__(self, question: str, options: Sequence[str] | Scale, note: str = "") -> None:
        checks.instance("question", question, str, "a text")
        checks.instance("note", note, str, "a text")
        if not question.strip():
            raise ValueError(f"question must be a sentence; got {question!r}.")
        self.question = question
        self.committed: Choice | None = None
        self._answer: tuple[str, Choice | None] | None = None
        self._unit, self._choice = _choice(options)
        fixes = "Fix this answer; it cannot be changed afterwards"
        self.commit_button = widgets.Button(description="Commit", icon="check", tooltip=fixes)
        self.commit_button.on_click(lambda _: self._click())
        self._said = widgets.HTML()
        self.answer = TitledHTML(f"Answer to: {question}", layout={"display": "none"}).add_class("kit-answer")
        hint = f'<div class="kit-note">{html.escape(note)}</div>' if note else ""
        head = widgets.HTML(f"{style_tag('predict.css')}<b>Predict: {html.escape(question)}</b>{hint}")
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
            TypeError: `right` is no number, on a scale, or the answer is no text.
        """
        checks.instance("answer_text", answer_text, str, "a text")
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
        self.answer.value = spoken(f"<b>Answer:</b> {html.escape(text)}{verdict}")

    def _verdict(self, said: Choice, right: Choice) -> str:
        if isinstance(said, str) or isinstance(right, str):
            return "✔ You said so." if said == right else f"✘ You said {said!r}; it is {right!r}."
        off = abs(said - right)
        if off <= self._choice.step / 2:
            return f"✔ You said {self._written(said)}: as near as the scale allows."
        distance = f"{off:.6g} points" if self._unit == "%" else self._written(off)
        return f"You said {self._written(said)}: {distance} off."

    def _click(self) -> None:
        try:
            self.commit()
        except ValueError as error:  # nothing is chosen yet; a traceback would help nobody
            self._say(html.escape(str(error)[0].upper() + str(error)[1:]))

    def _say(self, text: str) -> None:
        self._said.value = spoken(text)

    def _written(self, value: Choice) -> str:
        return value if isinstance(value, str) else f"{value:.6g} {self._unit}".strip()

    def _checked(self, argument: str, value: Choice) -> Choice:
        if isinstance(self._choice, widgets.RadioButtons):
            checks.one_of(argument, value, self._choice.options)
            return value
        low, high, number = self._choice.min, self._choice.max, checks.number(argument, value)
        if not low <= number <= high:
            raise ValueError(f"{argument} must lie in {low:g} to {high:g} {self._unit}; got {value!r}.")
        return number

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        return bundle_with(super()._repr_mimebundle_(**settings), f"Prediction: {self.question}")


def _choice(options: Sequence[str] | Scale) -> tuple[str, Any]:
    """The unit, and the control: a slider for a scale, radio buttons for options."""
    wrong = TypeError(f"options must be a list of texts or (low, high, step, unit); got {options!r}.")
    if isinstance(options, str) or not isinstance(options, Sequence):
        raise wrong
    label: dict[str, Any] = {"description": "your answer", "style": {"description_width": "initial"}}
    if all(isinstance(option, str) for option in options):
        if len(options) < 2 or len(set(options)) < len(options):
            raise ValueError(f"options must be two or more different answers; got {list(options)}.")
        return "", widgets.RadioButtons(options=list(options), value=None, **label)
    if len(options) != 4 or not isinstance(options[3], str):
        raise wrong
    low, high, step = (checks.number(f"options[{at}]", options[at]) for at in range(3))
    if not low < high or not 0 < step <= high - low:
        raise ValueError(f"options as a scale need low < high and 0 < step <= high - low; got {options!r}.")
    decimals = max(0, -int(Decimal(str(step)).normalize().as_tuple().exponent))
    label["description"] += f", {options[3]}" * bool(options[3])
    label |= {"min": low, "max": high, "step": step, "value": low + step * round((high - low) / 2 / step)}
    label |= {"readout_format": f".{decimals}f", "layout": {"width": "100%", "margin": "2px 0"}}
    return options[3], widgets.FloatSlider(**label)
