"""Whether parameters are finite: asked before a checkpoint is written, and of what was read from one."""

import math
from collections.abc import Collection, Mapping

import torch

from returnn_lite.engine.models.model import Model
from returnn_lite.engine.step import BrokenScores
from returnn_lite.optim.gradients import own_part

SHOWN = 5  # names in an error


def all_finite(values: Collection[torch.Tensor]) -> bool:
    """Whether no number is NaN or infinite; of parameters that processes share, in the part of this one.

    The device is waited for once, whatever the number of tensors.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for value in map(own_part, values):
        if (value.is_floating_point() or value.is_complex()) and value.numel():
            groups.setdefault((value.dtype, value.device), []).append(value.detach())
    if not groups:
        return True
    # The largest absolute value is NaN if any is; it does not overflow, as a sum of squares would.
    largest = [torch.stack(torch._foreach_norm(group, math.inf)).isfinite().all() for group in groups.values()]
    device = largest[0].device
    return bool(torch.stack([one.to(device) for one in largest]).all())


def nonfinite(params: Mapping[str, torch.Tensor], ignore: Collection[str] = ()) -> list[str]:
    """The names of those that are not finite, without those in `ignore`."""
    asked = {name: value for name, value in params.items() if name not in ignore}
    if all_finite(asked.values()):
        return []
    return [name for name, value in asked.items() if not all_finite([value])]


def infinite_constants(params: Mapping[str, torch.Tensor]) -> frozenset[str]:
    """What is not trained and begins with NaN or infinities, as a mask of -inf does: there it is no fault."""
    return frozenset(nonfinite({name: value for name, value in params.items() if not value.requires_grad}))


def described(params: Mapping[str, torch.Tensor], names: list[str]) -> str:
    """`parameter 'w' (2 of 6 numbers are NaN or infinite)`, and the names of further ones."""
    first = own_part(params[names[0]])
    count = int((~torch.isfinite(first)).sum())
    text = f"parameter {names[0]!r} is not finite ({count} of {first.numel()} numbers are NaN or infinite)"
    more = [repr(name) for name in names[1:SHOWN]] + ["…"] * (len(names) > SHOWN)
    return f"{text}; neither {'is' if len(names) == 2 else 'are'} {', '.join(more)}" if more else text


def require_finite(net: Model, consequence: str) -> None:
    """Raises BrokenScores if a parameter of the network, or what it counts, is not finite. `consequence`: what is not
    done then, such as "out/m.002 is not written"."""
    bad = nonfinite(net.params, net.infinite_constants)
    if bad:
        raise BrokenScores("", f"{described(net.params, bad)}, so {consequence}")
