"""Options of layers in old configs: what they are called today, which are accepted without effect, which are not."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from returnn_lite.config_value import ConfigDict, ConfigOptions, ConfigValue

RENAMED = {"window": {"window": "window_size"}}  # class -> old option -> its name today
# Class ("": every one) -> option -> the values that ask for what is done anyway.
NO_EFFECT: dict[str, dict[str, tuple[Any, ...]]] = {
    "": {"sampling": (1, None)},
    "batch_norm": {"axes": ("f", "F", ["f"], ["F"]), "fused": (True, False), "fused_bn": (True, False)},
}
_TOOLKIT = "it belongs to losses that an external speech toolkit computes; use the layer `fast_bw` with `via_layer`"
_PRIORS = "use the layers `accumulate_mean` and `eval`"
REFUSED = {
    "ce_smoothing": _TOOLKIT,
    "ce_target_layer_align": _TOOLKIT,
    "compute_priors": _PRIORS,
    "compute_priors_exp_average": _PRIORS,
    "loss_like_ce": _TOOLKIT,
    "prior_scale": _PRIORS,
    "sprint_opts": _TOOLKIT,
}


def present_day(kind: ConfigValue, description: ConfigDict, own: Container[str]) -> ConfigOptions:
    """A layer's description with the options' names of today, without those that mean nothing.

    kind, own: its class, as the config has it, and the options of that.
    """
    renamed = RENAMED.get(kind, {})
    ignored = {**NO_EFFECT[""], **NO_EFFECT.get(kind, {})}
    return {
        option if option in own else renamed.get(option, option): value
        for option, value in description.items()
        if option in own or option not in ignored or value not in ignored[option]
    }
