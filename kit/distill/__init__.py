"""Distillation: a small network, the student, learns from the answers of a big one, the teacher.

| to | call |
|---|---|
| soften probabilities | `soften(logits, temperature)` |
| have the loss | `loss(student_logits, teacher_logits, labels, temperature=4, alpha=0.9)` |
| train one student of any kind | `fit(student, teacher, digits.train, epochs=20, lr=1e-2)` |
| let them meet on other samples | `partly_labelled`, `few`, `shifted`, `thinned`, `without_class` |
| teach by a hidden layer first | `hint(student, teacher, digits.train, student_layer=..., teacher_layer=...)` |
| train many seeds and temperatures at once | `Students(teacher, digits).train([Recipe(...), ...], seeds=range(16))` |
| let networks teach their like | `generations(template, members, digits.train, 3, epochs=20)` |
"""

# ruff: noqa: F401  (the names that the room offers)

from kit.distill.fit import answers, features, fit, hint, standardised
from kit.distill.loss import loss, soften
from kit.distill.students import LEARNING_RATE, SMOOTHING, Group, Recipe, Students, generations, hinted
from kit.distill.transfer import few, partly_labelled, shifted, thinned, without_class
