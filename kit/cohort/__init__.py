"""Cohorts: many small networks, trained as one.

Moving a slider trains students again only if that takes a moment. K networks of one family, each with its own seed and
hyper-parameters, live in one set of batched tensors, so each line of the training loop runs once for all of them.

| to | call |
|---|---|
| say what each network is | `members(seed=range(8), lr=[1e-3, 1e-2])` |
| make the networks | `Cohort(models.MLP((64, 16, 10)), those)` |
| have a small network for a data set, texts too | `template(digits, width=16)` |
| train them all | `fit(cohort, digits.train, epochs=20)` |
| see what they reached | `table(cohort, history, digits)` |
| take one out | `cohort.model(3)` |
| know how fast they are trained here | `speed(models.MLP((64, 16, 10)), digits.train)` |
"""

# ruff: noqa: F401  (the names that the room offers)

from kit.cohort.fitting import UNLABELLED, CohortHistory, fit, speed
from kit.cohort.members import HYPER_PARAMETERS, Member, check_temperature, members
from kit.cohort.networks import Cohort, n_inputs, template
from kit.cohort.results import accuracies, answers, table
from kit.cohort.steps import Hold
