"""`behavior_version`: defaults and rules that changed over time. A config keeps those it was written for (0: unset)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from returnn_lite.config.config import Config
from returnn_lite.errors import ConfigError

if TYPE_CHECKING:
    from returnn_lite.log import Log

# version -> what changes from that version on. Missing numbers concern other front ends than the layer dict.
CHANGES: dict[int, str] = {
    1: 'layers must have an explicit `from` (before: default "data")',
    2: "the boolean optimizer options (adam=True, ...) are errors",
    3: "dot layer: axes must not be ints, other defaults for red and var",
    4: "combining inputs of which none has all dims is an error unless out_shape is given",
    5: "`axis` and `axes` must not be ints",
    6: "merge_dims: keep_order=True always",
    7: 'axis descriptions that depend on the order of axes ("spatial:1") are errors',
    8: "conv, pool, transposed_conv need in_spatial_dims for more than one spatial dim",
    9: "conv, pool: auto_use_channel_first=True",
    10: "conv: with_bias=True by default (before False)",
    11: "broadcast dims of size 1 do not match in combine and the like",
    12: "batch_norm: momentum 0.1 (before 0.99), update_sample_only_in_training, delay_sample_update, param_version 2, "
    "masked_time must be given",
    13: "rec layer: an `output` moved out of the loop must keep the time dim of the loop",
    14: "dot layer: stricter automatic matching of dims",
    15: "gradient accumulation reads the global train step deterministically",
    16: "equality of dims is stricter",
    17: "zoneout LSTM cell: use_zoneout_output=True",
    18: "window layer: order of the output axes is optimised",
    21: "pad layer: handle_dynamic_dims=True",
    30: "native ctc loss: sequences without valid alignment give 0 loss and gradient",
}
LATEST_BEHAVIOR = 30


class Behavior:
    """The behavior version of a run; compares with version numbers: `if behavior >= 12: …`."""

    def __init__(self, version: int | None = None) -> None:
        self._version: int | None = None
        if version is not None:
            self.set(version)

    @classmethod
    def from_config(cls, config: Config, log: Log | None = None) -> Behavior:
        """From the option `behavior_version`. A version that is not known yet is only warned about (verbosity 1)."""
        behavior = cls(config.int("behavior_version", None))
        if behavior > LATEST_BEHAVIOR and log is not None:
            log.v1(f"WARNING: behavior_version {behavior.version} is higher than the latest known, {LATEST_BEHAVIOR}")
        return behavior

    @property
    def version(self) -> int:
        """The version; 0 if none was set."""
        return self._version or 0

    def set(self, version: int) -> None:
        """Sets the version. ConfigError if it is negative or was set to another one before."""
        if version < 0:
            raise ConfigError("behavior_version", f"must not be negative, but is {version} instead")
        if self._version is not None and self._version != version:
            raise ConfigError("behavior_version", f"was set to {self._version} before, but is {version} now")
        self._version = version

    def __ge__(self, version: int) -> bool:
        return self.version >= version

    def __gt__(self, version: int) -> bool:
        return self.version > version

    def __le__(self, version: int) -> bool:
        return self.version <= version

    def __lt__(self, version: int) -> bool:
        return self.version < version

    def __repr__(self) -> str:
        return f"Behavior({self.version})"
