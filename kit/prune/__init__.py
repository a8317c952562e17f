"""Pruning: remove what matters least, and measure what that costs.

| to | call |
|---|---|
| set single weights to zero | `weights(model, ratio=0.9)` |
| take whole channels out | `channels(model, ratio=0.5, dataset=digits)` |
| train on with the zeros held | `fine_tune(model, digits, epochs=3)` |
| score weights yourself | `score_weights(model, "taylor", dataset=digits)` |
| see which layer can lose how much | `scan(model, digits)`, then `allocate(...)` |
| prune in rounds | `iterative(model, digits, ratio=0.95, rounds=5, epochs=10)` |
| have the whole trade-off | `Sweep(model, digits)` |
| look for a lottery ticket | `lottery(model, digits, ratio=0.9, rounds=3, epochs=10)` |
"""

from kit.prune.lottery import Lottery, lottery, shuffled
from kit.prune.schedule import SCHEDULES, Iterative, Round, Schedule, iterative, schedule
from kit.prune.scores import IMPORTANCES, Importance, prunable, score_weights
from kit.prune.sensitivity import SCAN_RATIOS, Scanner, Sensitivity, allocate, scan
from kit.prune.structured import (
    LastChannelWarning,
    Thinned,
    Untraceable,
    channel_groups,
    channels,
    thin,
)
from kit.prune.sweep import WHATS, Method, Point, Pruned, Sizes, Sweep, What
from kit.prune.unstructured import (
    SCOPES,
    HoldMasks,
    Masks,
    Ranking,
    Scope,
    apply_masks,
    fine_tune,
    masks,
    rank,
    threshold_masks,
    weights,
)

__all__ = [
    "IMPORTANCES",
    "SCAN_RATIOS",
    "SCHEDULES",
    "SCOPES",
    "WHATS",
    "HoldMasks",
    "Importance",
    "Iterative",
    "LastChannelWarning",
    "Lottery",
    "Masks",
    "Method",
    "Point",
    "Pruned",
    "Ranking",
    "Round",
    "Scanner",
    "Schedule",
    "Scope",
    "Sensitivity",
    "Sizes",
    "Sweep",
    "Thinned",
    "Untraceable",
    "What",
    "allocate",
    "apply_masks",
    "channel_groups",
    "channels",
    "fine_tune",
    "iterative",
    "lottery",
    "masks",
    "prunable",
    "rank",
    "scan",
    "schedule",
    "score_weights",
    "shuffled",
    "thin",
    "threshold_masks",
    "weights",
]
