"""`BehaviorVersion` under its former name."""

from returnn_lite.behavior_version import BehaviorVersion, select_backend_torch

__all__ = ["BehaviorVersion", "select_backend_torch"]
