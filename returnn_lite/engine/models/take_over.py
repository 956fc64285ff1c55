"""From one network to the next: parameters that both have, as a whole or block by block."""

import itertools
from collections.abc import Callable

import torch

from returnn_lite.engine.models.model import Model
from returnn_lite.log import Log


def take_over_params(old: Model, new: Model, mode_of: Callable[[str], str | None], log: Log) -> None:
    """Copies the parameters that both networks have under one name and in one shape; others stay as initialised.

    mode_of: by name; "reset": not copied, "subset": of parameters of different shape as much as both have.
    """
    with torch.no_grad():
        for name, param in new.params.items():
            before, mode = old.params.get(name), mode_of(name)
            if before is None or mode == "reset":
                continue
            if before.shape == param.shape:
                param.copy_(before)
            elif mode == "subset" and before.dim() == param.dim():
                copy_blocks(before, param, old.param_options[name].blocks, new.param_options[name].blocks)
            else:
                log.v3(f"Will not set param {name!r} because its shape {list(before.shape)} != {list(param.shape)}.")


Blocks = tuple[tuple[int, ...], ...] | None


def copy_blocks(old: torch.Tensor, new: torch.Tensor, old_blocks: Blocks, new_blocks: Blocks) -> None:
    """Copies the leading part of each block (a gate, a source) that both have.

    An axis without blocks is one block. Where one has more blocks, its last ones are those of the other.
    """
    axes = []
    for axis, (old_size, new_size) in enumerate(zip(old.shape, new.shape, strict=True)):
        parts = (old_blocks[axis], new_blocks[axis]) if old_blocks and new_blocks else ((old_size,), (new_size,))
        count = max(map(len, parts))
        axes.append(_block_slices(*((0,) * (count - len(part)) + part for part in parts)))
    for combination in itertools.product(*axes):
        new[tuple(there for _, there in combination)] = old[tuple(here for here, _ in combination)]


def _block_slices(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Where the common part of each block lies in the old and in the new axis."""
    starts = zip(itertools.accumulate(old, initial=0), itertools.accumulate(new, initial=0), strict=True)
    sizes = (min(a, b) for a, b in zip(old, new, strict=True))
    return [(slice(a, a + n), slice(b, b + n)) for (a, b), n in zip(starts, sizes, strict=False)]
