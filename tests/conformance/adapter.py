"""What the conformance runner calls: one function per kind, each in a small module of its own."""

from tests.conformance.data_kinds import batching, dataset, seq_order
from tests.conformance.network_kind import config_imports, network
from tests.conformance.schedule_kind import learning_rate_control
from tests.conformance.updater_kind import updater

__all__ = ["batching", "config_imports", "dataset", "learning_rate_control", "network", "seq_order", "updater"]
