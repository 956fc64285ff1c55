"""The training step's update: optimizers by config name, gradient processing, per-layer options."""

from . import algorithms  # fills the registry
from .base import RULES, LazyRule, Optimizer, Rule, optimizer
from .updater import Updater

__all__ = ["RULES", "LazyRule", "Optimizer", "Rule", "Updater", "algorithms", "optimizer"]
