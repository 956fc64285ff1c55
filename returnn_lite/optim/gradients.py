"""From the gradients of the objective to what the optimizer gets: noise, clipping, filters.

Every stage maps a list of gradient values to a new list (gradients of different parameters may share memory, so none is
changed in place). For a row-sparse gradient the values are its rows (N, …), one per frame, duplicates not yet summed.
Norms stay on the device: nothing here waits for it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from returnn_lite.errors import ConfigError

Gradients = dict[str, Tensor]
# What torch says of mistakes in the code of a model.
_MISTAKES = ("backward through the graph a second time", "modified by an inplace operation")


@contextmanager
def _told() -> Iterator[None]:
    """Tells mistakes in the code of a model as ConfigErrors."""
    try:
        yield
    except RuntimeError as error:
        if not any(mistake in str(error) for mistake in _MISTAKES):
            raise
        raise ConfigError("", f"the gradients cannot be computed: {' '.join(str(error).split())}") from error


def gradients(objective: Tensor, params: Mapping[str, Tensor], *, create_graph: bool = False) -> Gradients:
    """d objective / d param by name, without the parameters on which the objective does not depend."""
    if not params or not objective.requires_grad:
        return {}
    with _told():
        found = torch.autograd.grad(objective, list(params.values()), allow_unused=True, create_graph=create_graph)
    return {name: grad for name, grad in zip(params, found, strict=True) if grad is not None}


def backward(objective: Tensor, params: Mapping[str, Tensor]) -> Gradients:
    """The same of all parameters that require a gradient now, by a plain backward pass, with what has gathered in
    their `grad` before."""
    if objective.requires_grad:
        with _told():
            objective.backward()
    grads = {name: param.grad for name, param in params.items() if param.grad is not None}
    found = {name: grad.coalesce() if grad.is_sparse else grad for name, grad in grads.items()}
    for param in params.values():
        param.grad = None
    return found


def maximize_norm(grads: Gradients, params: Mapping[str, Tensor], factors: Mapping[str, float]) -> Gradients:
    """g - f d||g||/dw with ||g|| over all parameters; dense. The gradients must have been made with create_graph."""
    if not grads:
        return {}
    grads = dense(grads)
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad) for grad in grads.values()]))
    extra = dense(gradients(norm, {name: params[name] for name in grads if factors[name]}))
    return {name: (g - factors[name] * extra[name] if name in extra else g).detach() for name, g in grads.items()}


def dense(grads: Gradients) -> Gradients:
    """Row-sparse gradients as dense ones."""
    return {name: grad.to_dense() if grad.is_sparse else grad for name, grad in grads.items()}


def in_one_piece(number: Tensor) -> Tensor:
    """A number that is known in parts, one in each process, as a whole in all of them (DTensor)."""
    full_tensor: Callable[[], Tensor] | None = getattr(number, "full_tensor", None)
    return number if full_tensor is None else full_tensor()


def own_part(value: Tensor) -> Tensor:
    """What this process has of a tensor; usually all of it."""
    to_local: Callable[[], Tensor] | None = getattr(value, "to_local", None)  # of DTensor
    return value if to_local is None else to_local()


def as_part(whole: Tensor, like: Tensor) -> Tensor:
    """A tensor that all processes have, as this process's part where `like` is in parts (DTensor)."""
    from_local: Callable[..., Tensor] | None = getattr(type(like), "from_local", None)
    if from_local is None:
        return whole
    made: Tensor = from_local(whole, like.device_mesh).redistribute(placements=like.placements)  # type: ignore[attr-defined]
    return made


def value_of(grad: Tensor) -> Tensor:
    """The tensor itself, or the rows of a sparse one."""
    return grad._values() if grad.is_sparse else grad


def with_value(grad: Tensor, value: Tensor) -> Tensor:
    """The gradient with other values, sparse as before."""
    if not grad.is_sparse:
        return value
    return torch.sparse_coo_tensor(grad._indices(), value, grad.shape, check_invariants=False)


def global_norm(values: Sequence[Tensor], *, like: Tensor) -> Tensor:
    """The norm of all values together, a scalar (if there are none: 0, of the kind of `like`)."""
    if not values:
        return torch.zeros((), device=like.device, dtype=like.dtype)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(values))))
    return norm


def add_noise(values: Sequence[Tensor], stddev: float, generators: "NoiseGenerators") -> list[Tensor]:
    """Adds truncated normal noise, at most 2 stddev."""
    noise = [generators.truncated_normal(value) for value in values]
    return list(torch._foreach_add(list(values), noise, alpha=stddev))


def clip_values(values: Sequence[Tensor], limit: float) -> list[Tensor]:
    """Every element into [-limit, limit]."""
    return list(torch._foreach_clamp_min(torch._foreach_clamp_max(list(values), limit), -limit))


def clip_norms(values: Sequence[Tensor], limit: float) -> list[Tensor]:
    """g limit / max(||g||, limit), each parameter by itself."""
    norms = torch.stack(torch._foreach_norm(list(values)))
    return _scaled(values, limit / norms.clamp(min=limit))


def clip_average_norms(values: Sequence[Tensor], limit: float) -> list[Tensor]:
    """g limit min(1/a, 1/limit) with a = ||g|| / number of elements, each parameter by itself."""
    norms = torch._foreach_div(torch._foreach_norm(list(values)), [float(max(value.numel(), 1)) for value in values])
    return _scaled(values, limit * torch.stack(norms).reciprocal().clamp(max=1 / limit))


def clip_global_norm(values: Sequence[Tensor], limit: float, norm: Tensor) -> list[Tensor]:
    """g limit min(1/norm, 1/limit); a norm that is not finite makes all of it NaN."""
    scale = limit * norm.reciprocal().clamp(max=1 / limit)
    return list(torch._foreach_mul(list(values), torch.where(norm.isfinite(), scale, math.nan)))


def _scaled(values: Sequence[Tensor], factors: Tensor) -> list[Tensor]:
    return list(torch._foreach_mul(list(values), list(factors.unbind())))


def without_nan_and_inf(values: Sequence[Tensor]) -> list[Tensor]:
    """0 in place of NaN and infinity."""
    return [value.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for value in values]


def zero_above(values: Sequence[Tensor], limit: float, norm: Tensor) -> list[Tensor]:
    """All 0 if the norm is above the limit or NaN."""
    above = ~(norm <= limit)
    return [value.masked_fill(above, 0.0) for value in values]


class NoiseGenerators:
    """Random numbers of one step, from its number alone: a resumed run draws what the first one would have drawn."""

    def __init__(self, seed: int, step: int) -> None:
        self.seed = (seed * 1_000_003 + step) % 2**31
        self.generators: dict[torch.device, torch.Generator] = {}

    def truncated_normal(self, like: Tensor) -> Tensor:
        """Standard normal, drawn again where beyond 2 (by the inverse of the distribution function)."""
        device = like.device
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        edge = math.erf(math.sqrt(2.0))  # P(|x| < 2)
        uniform = torch.empty(like.shape, dtype=like.dtype, device=device)
        uniform.uniform_(-edge, edge, generator=self.generators[device])
        uniform = as_part(uniform, like)
        return uniform.erfinv_().mul_(math.sqrt(2.0)).clamp_(-2.0, 2.0)
