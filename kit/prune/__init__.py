"""Pruning: remove what matters least, and measure what that costs.

| to | call |
|---|---|
| set single weights to zero | `weights(model, ratio=0.9)` |
| take whole channels out | `channels(model, ratio=0.5, dataset=digits)` |
| train on with the zeros held | `fine_tune(model, digits, epochs=3)` |
| have plain weights in place of normalised or masked ones | `plain(model)` |
| see which heads of an attention matter | `head_scores(model, dataset)`, `head_accuracies(model, dataset)` |
| know which outputs of which layers are a head | `heads(model, dataset)` |
| score weights yourself | `score_weights(model, "taylor", dataset=digits)` |
| see which layer can lose how much | `scan(model, digits)`, then `allocate(...)` |
| prune in rounds | `iterative(model, digits, ratio=0.95, rounds=5, epochs=10)` |
| have the whole trade-off | `Sweep(model, digits)` |
| have a smaller model back from its file | `load_smaller(model, path)` |
| look for a lottery ticket | `lottery(model, digits, ratio=0.9, rounds=3, epochs=10)` |
"""

# ruff: noqa: F401  (the names that the room offers)

from kit.prune.graph import Untraceable
from kit.prune.heads import Heads, head_accuracies, head_scores, heads
from kit.prune.lottery import Lottery, lottery, shuffled
from kit.prune.plain import plain
from kit.prune.reload import load_smaller
from kit.prune.schedule import SCHEDULES, Iterative, Round, Schedule, iterative, schedule
from kit.prune.scores import IMPORTANCES, Importance, prunable, score_weights
from kit.prune.sensitivity import SCAN_RATIOS, Scanner, Sensitivity, allocate, scan
from kit.prune.structured import (
    ChannelRemoval,
    LastChannelWarning,
    LeftAloneWarning,
    channel_groups,
    channels,
    remove_channels,
)
from kit.prune.sweep import LEARNING_RATE, WHATS, Point, Pruned, PruningMethod, Sizes, Sweep, What
from kit.prune.unstructured import (
    SCOPES,
    HoldMasks,
    Masks,
    Ranking,
    Scope,
    apply_masks,
    cut,
    fine_tune,
    masks,
    rank,
    weights,
)
