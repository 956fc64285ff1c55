"""Parts of the hidden states that recurrent layers hand on (`Tensor.state`), by key."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from returnn_lite.errors import ConfigError, did_you_mean


def state_part(
    state: Mapping[str, torch.Tensor], key: str | int | None, error: Callable[[str], ConfigError]
) -> torch.Tensor:
    """The part `key` of a state; "*" (or None) all parts side by side, "flat" as well if there are several.

    Shape: (B, H) each -> (B, H) or (B, sum of H). Raises what `error` makes of a message for any other key.
    """
    keys = list(state)
    if key in (None, "*", "flat"):
        if key == "flat" and len(keys) < 2:
            raise error('`key` "flat" needs a state of several parts, but the layer has one; use "*"')
        return torch.cat(list(state.values()), -1)
    if isinstance(key, int) and 0 <= key < len(keys) and len(keys) > 1:
        return state[keys[key]]
    known = ["*", *(k for k in keys if len(keys) > 1 or k == "c")]
    if key not in known:
        raise error(f"`key` must be one of {known}, but is {key!r} instead{did_you_mean(str(key), known)}")
    return state[str(key)]
