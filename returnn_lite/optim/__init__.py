"""The training step's update: optimizers by config name, gradient processing, per-layer options."""

from returnn_lite.optim import algorithms  # fills the registry
from returnn_lite.optim.optimizer import Optimizer
from returnn_lite.optim.rule_optimizer import RULES, LazyRule, Rule, RuleOptimizer, optimizer
from returnn_lite.optim.updater import Updater

__all__ = ["RULES", "LazyRule", "Optimizer", "Rule", "RuleOptimizer", "Updater", "algorithms", "optimizer"]
