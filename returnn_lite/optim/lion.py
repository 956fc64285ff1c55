"""Lion, as a torch optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from returnn_lite.errors import ConfigError


class Lion(torch.optim.Optimizer):
    """Steps by the sign of an interpolated momentum.  m: mean of gradients; decay is decoupled.

    p ← p − lr · (sign(β₁ m + (1 − β₁) g) + weight_decay · p), then m ← β₂ m + (1 − β₂) g.
    Chen et al., Symbolic discovery of optimization algorithms, 2023. ConfigError for an option out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],  # Any: tensors, or dicts of options, as torch takes them
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0:
            raise ConfigError("Lion: lr", f"must be at least 0, but is {lr} instead")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ConfigError("Lion: betas", f"must be two numbers in [0, 1), but are {betas} instead")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update; what `closure` gives, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._step(params, group)
        return loss

    def _step(self, params: list[torch.Tensor], group: dict[str, Any]) -> None:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        grads = [param.grad for param in params if param.grad is not None]
        means = [self._mean(param) for param in params]
        steps = torch._foreach_lerp(grads, means, beta1)  # β₁ m + (1 − β₁) g
        torch._foreach_sign_(steps)
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        torch._foreach_add_(params, steps, alpha=-lr)
        torch._foreach_lerp_(means, grads, 1 - beta2)

    def _mean(self, param: torch.Tensor) -> torch.Tensor:
        """The momentum of a parameter, zero at first."""
        state = self.state[param]
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(param)
        found: torch.Tensor = state["exp_avg"]
        return found
