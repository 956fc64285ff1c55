"""The update rules. w parameter, g gradient, lr learning rate, t number of this update from 1 on; state starts at 0.

All work on lists of tensors with fused in-place operations. Mind the epsilons: Adam's is added to the root without bias
correction, RMSprop's is inside the root, Adagrad has none.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from returnn_lite.optim.fused import can_be_fused
from returnn_lite.optim.rule_optimizer import LazyRule, Rule, Tensors, dense_rows, optimizer


def float32(number: float) -> float:
    """The number rounded to single precision, in which the betas count."""
    return float(np.float32(number))


@optimizer("gradientdescent", "customgradientdescent")
class GradientDescent(LazyRule):
    """w -= lr g."""

    def update(self, w: Tensors, g: Tensors, rate: float) -> None:
        torch._foreach_add_(w, g, alpha=-rate)


@optimizer("momentum")
class Momentum(LazyRule):
    """a = momentum a + g;  w -= lr a.  Nesterov: w -= lr (g + momentum a).  (Polyak 1964, Sutskever et al. 2013)"""

    slots = {"accumulator": 0.0}

    def __init__(self, *, momentum: float, use_nesterov: bool = False) -> None:
        self.momentum, self.use_nesterov = momentum, use_nesterov

    def update(self, w: Tensors, g: Tensors, rate: float, a: Tensors) -> None:
        torch._foreach_mul_(a, self.momentum)
        torch._foreach_add_(a, g)
        if self.use_nesterov:
            torch._foreach_add_(w, g, alpha=-rate)
        torch._foreach_add_(w, a, alpha=-rate * self.momentum if self.use_nesterov else -rate)


@optimizer("adam", "customadam")
class Adam(Rule):
    """m += (1-b1)(g-m);  v += (1-b2)(g^2-v);  w -= lr sqrt(1-b2^t)/(1-b1^t) m/(sqrt(v)+epsilon).  (Kingma, Ba 2015)"""

    slots = {"m": 0.0, "v": 0.0}

    def __init__(self, *, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-16) -> None:
        self.beta1, self.beta2, self.epsilon = float32(beta1), float32(beta2), epsilon
        self.bases = {"beta1": self.beta1, "beta2": self.beta2}

    def rate(self, lr: float, powers: Mapping[str, float]) -> float:
        one = np.float32(1)
        root = np.sqrt(one - np.float32(powers["beta2"]))
        return float(np.float32(lr) * root / (one - np.float32(powers["beta1"])))

    def moments(self, g: Tensors, m: Tensors, v: Tensors) -> None:
        """Updates both moments."""
        torch._foreach_lerp_(m, g, 1 - self.beta1)
        torch._foreach_mul_(v, self.beta2)
        torch._foreach_addcmul_(v, g, g, 1 - self.beta2)

    def denominator(self, v: Tensors) -> list[Tensor]:
        """sqrt(v) + epsilon, new tensors."""
        root = list(torch._foreach_sqrt(v))
        torch._foreach_add_(root, self.epsilon)
        return root

    def update(self, w: Tensors, g: Tensors, rate: float, m: Tensors, v: Tensors) -> None:
        if can_be_fused(w):
            self.update_fused(w, g, rate, m, v)
            return
        self.moments(g, m, v)
        torch._foreach_addcdiv_(w, m, self.denominator(v), -rate)

    def update_fused(self, w: Tensors, g: Tensors, rate: float, m: Tensors, v: Tensors) -> None:
        """The same as one call. `rate` has the bias corrections already: to torch, so many updates were made before
        that its own are 1."""
        g = [x if x.stride() == p.stride() else torch.empty_like(p).copy_(x) for x, p in zip(g, w, strict=True)]
        long_ago = torch.full((), 1e9, device=w[0].device)
        torch._fused_adam_(
            w, g, m, v, [], [long_ago] * len(w), lr=rate, beta1=self.beta1, beta2=self.beta2, weight_decay=0.0,
            eps=self.epsilon, amsgrad=False, maximize=False,
        )  # fmt: skip


@optimizer("nadam")
class NAdam(Adam):
    """Adam with b1 m + (1-b1) g for m; no momentum schedule.  By a row-sparse gradient only its rows of w move."""

    def update(self, w: Tensors, g: Tensors, rate: float, m: Tensors, v: Tensors) -> None:
        self.moments(g, m, v)
        self.move(w, g, rate, m, v)

    def move(self, w: Tensors, g: Tensors, rate: float, m: Tensors, v: Tensors) -> None:
        """The step of w, for moments that are up to date."""
        ahead = torch._foreach_mul(m, self.beta1)
        torch._foreach_add_(ahead, g, alpha=1 - self.beta1)
        torch._foreach_addcdiv_(w, ahead, self.denominator(v), -rate)

    def update_rows(self, w: Tensor, rows: Tensor, g: Tensor, rate: float, m: Tensor, v: Tensor) -> None:
        self.moments([dense_rows(w, rows, g)], [m], [v])
        part, part_m, part_v = (tensor.index_select(0, rows) for tensor in (w, m, v))
        self.move([part], [g], rate, [part_m], [part_v])
        w.index_copy_(0, rows, part)


@optimizer("adamw")
class AdamW(Adam):
    """w -= weight_decay w (not times lr), then Adam with the gradient at the undecayed w."""

    def __init__(
        self, *, weight_decay: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-16
    ) -> None:
        super().__init__(beta1=beta1, beta2=beta2, epsilon=epsilon)
        self.weight_decay = weight_decay

    def update(self, w: Tensors, g: Tensors, rate: float, m: Tensors, v: Tensors) -> None:
        torch._foreach_mul_(w, 1 - self.weight_decay)
        super().update(w, g, rate, m, v)


@optimizer("amsgrad")
class AMSGrad(Adam):
    """Adam with the largest v so far in the denominator.  (Reddi, Kale, Kumar 2018)"""

    slots = {"m": 0.0, "v": 0.0, "v_max": 0.0}

    def update(  # type: ignore[override]  # `slots` says how many there are
        self, w: Tensors, g: Tensors, rate: float, m: Tensors, v: Tensors, v_max: Tensors
    ) -> None:
        self.moments(g, m, v)
        torch._foreach_maximum_(v_max, v)
        torch._foreach_addcdiv_(w, m, self.denominator(v_max), -rate)


@optimizer("adadelta")
class Adadelta(LazyRule):
    """A = rho A + (1-rho) g^2;  d = g sqrt(U+epsilon)/sqrt(A+epsilon);  U = rho U + (1-rho) d^2;  w -= lr d.

    (Zeiler 2012)
    """

    slots = {"accumulator": 0.0, "update": 0.0}

    def __init__(self, *, rho: float = 0.95, epsilon: float = 1e-16) -> None:
        self.rho, self.epsilon = rho, epsilon

    def update(self, w: Tensors, g: Tensors, rate: float, a: Tensors, u: Tensors) -> None:
        torch._foreach_mul_(a, self.rho)
        torch._foreach_addcmul_(a, g, g, 1 - self.rho)
        step, root = torch._foreach_add(u, self.epsilon), torch._foreach_add(a, self.epsilon)
        torch._foreach_sqrt_(step)
        torch._foreach_sqrt_(root)
        torch._foreach_div_(step, root)
        torch._foreach_mul_(step, g)
        torch._foreach_mul_(u, self.rho)
        torch._foreach_addcmul_(u, step, step, 1 - self.rho)
        torch._foreach_add_(w, step, alpha=-rate)


@optimizer("adagrad")
class Adagrad(LazyRule):
    """A += g^2;  w -= lr g / sqrt(A).  A starts at `initial_accumulator_value`.  (Duchi, Hazan, Singer 2011)"""

    def __init__(self, *, initial_accumulator_value: float = 0.1) -> None:
        self.slots = {"accumulator": initial_accumulator_value}

    def update(self, w: Tensors, g: Tensors, rate: float, a: Tensors) -> None:
        torch._foreach_addcmul_(a, g, g)
        torch._foreach_addcdiv_(w, g, torch._foreach_sqrt(a), -rate)


@optimizer("adagradda")
class AdagradDA(Rule):
    """G += g;  A += g^2;  w = -lr shrink(G, t l1) / (sqrt(A) + lr t l2), shrink(x, s) = sign(x) max(|x| - s, 0).

    Dual averaging: the parameter's initial value is forgotten.  (Duchi, Hazan, Singer 2011)
    """

    def __init__(
        self,
        *,
        initial_gradient_squared_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
    ) -> None:
        self.l1, self.l2 = l1_regularization_strength, l2_regularization_strength
        self.slots = {"sum": 0.0, "accumulator": initial_gradient_squared_accumulator_value, "updates": 0.0}

    def update(self, w: Tensors, g: Tensors, rate: float, total: Tensors, a: Tensors, updates: Tensors) -> None:
        torch._foreach_add_(total, g)
        torch._foreach_addcmul_(a, g, g)
        torch._foreach_add_(updates, 1.0)
        for x, s, square, t in zip(w, total, a, updates, strict=True):
            x.copy_(-rate * _shrink(s, t * self.l1, 0.0) / (square.sqrt() + rate * self.l2 * t))


@optimizer("rmsprop")
class RMSProp(LazyRule):
    """S += (1-decay)(g^2-S);  M = momentum M + lr g / sqrt(S+epsilon);  w -= M.  S starts at 1.

    centered: G += (1-decay)(g-G), and S - G^2 in place of S under the root.  (Tieleman and Hinton 2012)
    """

    def __init__(
        self, *, decay: float = 0.9, momentum: float = 0.0, epsilon: float = 1e-16, centered: bool = False
    ) -> None:
        self.decay, self.momentum, self.epsilon, self.centered = decay, momentum, epsilon, centered
        self.slots = {"square": 1.0} | ({"mean": 0.0} if centered else {}) | ({"momentum": 0.0} if momentum else {})

    def update(self, w: Tensors, g: Tensors, rate: float, *slots: Tensors) -> None:
        state = dict(zip(self.slots, slots, strict=True))
        torch._foreach_mul_(state["square"], self.decay)
        torch._foreach_addcmul_(state["square"], g, g, 1 - self.decay)
        root = torch._foreach_add(state["square"], self.epsilon)
        if self.centered:
            torch._foreach_lerp_(state["mean"], g, 1 - self.decay)
            torch._foreach_addcmul_(root, state["mean"], state["mean"], -1)
        torch._foreach_sqrt_(root)
        if not self.momentum:
            torch._foreach_addcdiv_(w, g, root, -rate)
            return
        torch._foreach_mul_(state["momentum"], self.momentum)
        torch._foreach_addcdiv_(state["momentum"], g, root, rate)
        torch._foreach_sub_(w, state["momentum"])


@optimizer("normalizedsgd")
class NormalizedSGD(Rule):
    """w -= lr g / sqrt(max(sum g^2, 1e-12)), the sum over the parameter."""

    def update(self, w: Tensors, g: Tensors, rate: float) -> None:
        norms = torch._foreach_norm(g)
        torch._foreach_clamp_min_(norms, 1e-6)
        torch._foreach_add_(w, torch._foreach_div(g, norms), alpha=-rate)


@optimizer("neuraloptimizer1")
class NeuralOptimizer1(Rule):
    """m = b1 m + (1-b1) g;  w -= lr g, times `decrease_factor` where sign(m) != sign(g).  (after Bello et al. 2017)"""

    slots = {"m": 0.0}

    def __init__(self, *, beta1: float = 0.9, decrease_factor: float = 0.1) -> None:
        self.beta1, self.decrease_factor = beta1, decrease_factor

    def update(self, w: Tensors, g: Tensors, rate: float, m: Tensors) -> None:
        torch._foreach_lerp_(m, g, 1 - self.beta1)
        steps = [
            torch.where(sign, x, x * self.decrease_factor)
            for x, sign in zip(g, (a.sign() == b.sign() for a, b in zip(m, g, strict=True)), strict=True)
        ]
        torch._foreach_add_(w, steps, alpha=-rate)


@optimizer("gradvariancescaled")
class GradVarianceScaled(Rule):
    """m = b1 m + (1-b1) g;  q = (g-m)^2;  v = b2 v + (1-b2) q;  w -= lr g min(v / (q+epsilon), 1)."""

    slots = {"m": 0.0, "v": 0.0}

    def __init__(self, *, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-16) -> None:
        self.beta1, self.beta2, self.epsilon = float32(beta1), float32(beta2), epsilon

    def update(self, w: Tensors, g: Tensors, rate: float, m: Tensors, v: Tensors) -> None:
        torch._foreach_lerp_(m, g, 1 - self.beta1)
        q = torch._foreach_sub(g, m)
        torch._foreach_mul_(q, q)
        torch._foreach_lerp_(v, q, 1 - self.beta2)
        torch._foreach_add_(q, self.epsilon)
        scale = torch._foreach_div(v, q)
        torch._foreach_clamp_max_(scale, 1.0)
        torch._foreach_addcmul_(w, g, scale, -rate)


@optimizer("proximalgradientdescent")
class ProximalGradientDescent(LazyRule):
    """w = shrink(w - lr g, lr), shrink(x, s) = sign(x) max(|x| - s l1, 0) / (1 + s l2).  (Duchi and Singer 2009)"""

    def __init__(self, *, l1_regularization_strength: float = 0.0, l2_regularization_strength: float = 0.0) -> None:
        self.l1, self.l2 = l1_regularization_strength, l2_regularization_strength

    def update(self, w: Tensors, g: Tensors, rate: float) -> None:
        for x, grad in zip(w, g, strict=True):
            x.copy_(_shrink(x - rate * grad, rate * self.l1, rate * self.l2))


@optimizer("proximaladagrad")
class ProximalAdagrad(Adagrad):
    """Adagrad, then `shrink` of ProximalGradientDescent with the element's own lr / sqrt(A)."""

    def __init__(
        self,
        *,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
    ) -> None:
        super().__init__(initial_accumulator_value=initial_accumulator_value)
        self.l1, self.l2 = l1_regularization_strength, l2_regularization_strength

    def update(self, w: Tensors, g: Tensors, rate: float, a: Tensors) -> None:
        super().update(w, g, rate, a)
        for x, total in zip(w, a, strict=True):
            own = rate / total.sqrt()
            x.copy_(_shrink(x, own * self.l1, own * self.l2))


def _shrink(x: Tensor, l1: Tensor | float, l2: Tensor | float) -> Tensor:
    return x.sign() * (x.abs() - l1).clamp(min=0) / (1 + l2)


@optimizer("ftrl")
class Ftrl(LazyRule):
    """Follow the regularised leader.  (McMahan et al. 2013)

    A' = A + g^2;  z += g - (A'^-p - A^-p)/lr w;  w = (sign(z) l1 - z) / (A'^-p/lr + 2 l2) where |z| > l1, else 0.
    """

    def __init__(
        self,
        *,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
    ) -> None:
        self.power, self.l1, self.l2 = -learning_rate_power, l1_regularization_strength, l2_regularization_strength
        self.slots = {"accumulator": initial_accumulator_value, "linear": 0.0}

    def update(self, w: Tensors, g: Tensors, rate: float, a: Tensors, z: Tensors) -> None:
        for x, grad, total, linear in zip(w, g, a, z, strict=True):
            before = total.pow(self.power)
            after = total.addcmul_(grad, grad).pow(self.power)
            linear.add_(grad - (after - before) / rate * x)
            moved = (linear.sign() * self.l1 - linear) / (after / rate + 2 * self.l2)
            x.copy_(torch.where(linear.abs() > self.l1, moved, torch.zeros_like(x)))
