"""Self-checks that the notebooks call: each says whether an answer is right, and if not, what is wrong with it.

Every check takes what the reader wrote and returns a `Verdict`; an exercise that is still untouched gets "Not yet" and
never an exception, so that a notebook runs from top to bottom without its answers.
"""

# ruff: noqa: F401  (the names that the room offers)

from kit.exercises.architecture import same_function, trainings_for_the_best
from kit.exercises.architecture_darts import mended_darts
from kit.exercises.architecture_task import best_small_cell
from kit.exercises.bayes import beat_the_loop, noisy_loop, one_point_posterior, posterior_of_means
from kit.exercises.big import best_in_bytes, texts_that_fit
from kit.exercises.compress import average_matched, fewest_bits, fold_in_front, shorter_blocks, smallest_file
from kit.exercises.distill import better_student, reverse_gradient, temperature_for, translated_alpha, wrong_soft_loss
from kit.exercises.gradient import attached_slope, beat_random, ridge_slope, terms_needed, which_slopes
from kit.exercises.pareto import area_alone, crowding_distance
from kit.exercises.prune import (
    own_ratios,
    ratio_for_a_tenth,
    repaired_listing,
    smallest_mask,
    sparse_break_even,
    taylor_scores,
)
from kit.exercises.search import asha_turn, beat_hyperband, halving_cost, hit_probabilities, trials_needed
from kit.exercises.start import images_needed, pareto_front, stop_early
from kit.exercises.text import causal_attention, without_heads
from kit.exercises.together import best_within, scalars
from kit.exercises.verdict import Verdict
from kit.exercises.workers import bracket_utilisation, fastest_to_target, workers_fed
