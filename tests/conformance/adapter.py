"""What the conformance runner calls: one function per kind, each in a small module of its own."""

from tests.conformance.data_kinds import batching, dataset, seq_order
from tests.conformance.network_kind import config_imports, network
from tests.conformance.optim_kinds import (
    lr_scheduler,
    thinc_optimizer,
    thinc_schedule,
    torch_optimizer,
    weight_averaging,
)
from tests.conformance.schedule_kind import learning_rate_control
from tests.conformance.tf_checkpoint_kind import read_tf_checkpoint, write_tf_checkpoint
from tests.conformance.tf_kind import tf_call
from tests.conformance.updater_kind import updater

__all__ = [
    "batching", "config_imports", "dataset", "learning_rate_control", "lr_scheduler", "network",
    "read_tf_checkpoint", "seq_order", "tf_call", "thinc_optimizer", "thinc_schedule", "torch_optimizer", "updater",
    "weight_averaging", "write_tf_checkpoint",
]  # fmt: skip
