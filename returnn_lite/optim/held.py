"""Which parameters of a model an optimizer has, and models written in torch whose options freeze some of them."""

from collections.abc import Container, Mapping

import torch
from torch import Tensor


def may_train(param: Tensor, written_in_torch: bool) -> bool:
    """Whether a parameter belongs to the optimizer: in a model written in torch also while it needs no gradient."""
    if not written_in_torch:
        return param.requires_grad
    return isinstance(param, torch.nn.Parameter) and (param.is_floating_point() or param.is_complex())


class Held:
    """Parameters of a model written in torch. What options freeze needs no gradient until they set it free; what the
    model itself freezes and sets free is left to it."""

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        self.params = params
        self.names = set[str]()

    def update(self, active: Container[str]) -> None:
        """`active`: those that options do not freeze now."""
        for name, param in self.params.items():
            if name not in active and param.requires_grad:
                self.names.add(name)
                param.requires_grad_(False)
            elif name in active and name in self.names:
                self.names.remove(name)
                param.requires_grad_(True)
