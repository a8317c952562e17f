"""Self-checks that the notebooks call: each says whether an answer is right, and if not, what is wrong with it.

Every check takes what the reader wrote and returns a `Verdict`; an exercise that is still untouched gets "Not yet" and
never an exception, so that a notebook runs from top to bottom without its answers.
"""

# ruff: noqa: F401  (the names that the room offers)

from kit.exercises.bayes import improvement, next_place, one_point_posterior
from kit.exercises.distill import missing_factor, soft_gradient, temperature_for, wrong_reduction
from kit.exercises.prune import ratio_for_a_tenth, repaired_listing, smallest_mask, sparse_break_even
from kit.exercises.search import chance_to_hit, halving_cost, promoted, trials_needed
from kit.exercises.start import images_needed, pareto_front
from kit.exercises.verdict import Verdict
