"""Explorers: a figure with its controls. Move a slider, and a real model is really pruned, trained or searched."""

from kit.explorers.prune import PruningExplorer

__all__ = ["PruningExplorer"]
