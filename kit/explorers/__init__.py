"""Explorers: a figure with its controls. Move a slider, and a real model is really pruned, trained or searched."""

# ruff: noqa: F401  (the names that the room offers)

from kit.explorers.architecture import ArchitectureExplorer
from kit.explorers.bayes import BayesExplorer
from kit.explorers.board import BoardExplorer
from kit.explorers.claim import claim
from kit.explorers.compress import CompressionExplorer
from kit.explorers.cost import CostExplorer
from kit.explorers.distill import DistillationExplorer
from kit.explorers.front import FrontExplorer
from kit.explorers.gradient import GradientExplorer
from kit.explorers.interval import IntervalExplorer
from kit.explorers.merge import MergeExplorer
from kit.explorers.picker import FilePicker
from kit.explorers.predict import Prediction
from kit.explorers.prune import PruningExplorer
from kit.explorers.running import RunningSearch
from kit.explorers.search import SearchExplorer
from kit.explorers.sensitivity import SensitivityExplorer
from kit.explorers.suspects import SuspectsExplorer
from kit.explorers.table import table
from kit.explorers.together import TogetherExplorer
from kit.explorers.workers import WorkersExplorer
from kit.plots.claim import Pairs
