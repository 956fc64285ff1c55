"""Parameters of which each process keeps a part: how they are gathered for a while, and their gradients averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor

# The context of a function of autograd, on which it keeps what it likes.
Context: TypeAlias = Any

# torch 2.13 has other names for them.
_all_gather = getattr(torch.distributed, "all_gather_single", None) or torch.distributed.all_gather_into_tensor
_reduce_scatter = getattr(torch.distributed, "reduce_scatter_single", None) or torch.distributed.reduce_scatter_tensor


def split_parameter(param: torch.nn.Parameter, mesh: DeviceMesh) -> torch.nn.Parameter:
    """The part of this process, of a parameter that is equal in all: along the first axis that can be split evenly,
    else along the largest. Single numbers stay in all."""
    count, sizes = mesh.size(), param.shape
    even = next((axis for axis, size in enumerate(sizes) if size % count == 0), None)
    axis = max(range(len(sizes)), key=lambda i: sizes[i]) if sizes and even is None else even
    placement: Placement = Replicate() if axis is None else Shard(axis)
    made = distribute_tensor(param.detach(), mesh, [placement])
    return torch.nn.Parameter(made, requires_grad=param.requires_grad)


class _Part:
    """A parameter in the row of numbers that each process sends: from `start` to `end`, `rows` along its axis."""

    def __init__(self, param: torch.nn.Parameter, start: int) -> None:
        if not isinstance(param.data, DTensor):
            raise TypeError(f"must be a DTensor, but is {type(param)} instead")
        self.param, self.start, self.shape, self.stride = param, start, param.shape, param.stride()
        self.mesh, self.placements = param.data.device_mesh, param.data.placements
        placement = self.placements[0]
        self.axis: int | None = placement.dim if isinstance(placement, Shard) else None
        count = self.mesh.size()
        self.rows = 1 if self.axis is None else math.ceil(self.shape[self.axis] / count)
        others = [size for axis, size in enumerate(self.shape) if axis != self.axis]
        self.others = others
        self.end = start + self.rows * math.prod(others)

    @property
    def local(self) -> torch.Tensor:
        """What this process has of it."""
        with torch.no_grad():
            found: torch.Tensor = self.param.to_local()  # type: ignore[attr-defined]
            return found

    def sent(self) -> torch.Tensor:
        """The part of this process, its axis first, padded to `rows`: (end - start,)."""
        local = self.local
        if self.axis is None:
            return local.reshape(-1)
        local = local.movedim(self.axis, 0)
        missing = self.rows - len(local)
        return torch.cat([local, local.new_zeros(missing, *self.others)]).reshape(-1) if missing else local.reshape(-1)

    def whole(self, sent: torch.Tensor) -> torch.Tensor:
        """The parameter, of what all processes sent: (processes, numbers of a row)."""
        if self.axis is None:
            return self.local.clone()
        rows = sent[:, self.start : self.end].reshape(len(sent) * self.rows, *self.others)
        return rows[: self.shape[self.axis]].movedim(0, self.axis).contiguous()

    def give(self, gradient: torch.Tensor, rows: torch.Tensor) -> None:
        """Puts a gradient of the parameter where each process gets its part of it: (processes, numbers of a row)."""
        own = rows[:, self.start : self.end]
        if self.axis is None:
            own.copy_(gradient.reshape(1, -1).expand_as(own))
            return
        gradient = gradient.movedim(self.axis, 0)
        for row, part in zip(own, gradient.split(self.rows), strict=False):
            row[: part.numel()].view(part.shape).copy_(part)

    def taken(self, row: torch.Tensor) -> torch.Tensor:
        """The gradient of this process's part, of its row."""
        local, found = self.local, row[self.start : self.end]
        if self.axis is not None:
            found = found.view(self.rows, *self.others)[: local.shape[self.axis]].movedim(0, self.axis)
        return DTensor.from_local(
            found.reshape(local.shape).contiguous(), self.mesh, self.placements, run_check=False, shape=self.shape,
            stride=self.stride,
        )  # fmt: skip


class _Flat:
    """Parameters of one type, which are sent together, and numbers for `flags`, one for each of them."""

    def __init__(self, params: Sequence[tuple[int, torch.nn.Parameter]]) -> None:
        self.numbers = [number for number, _ in params]
        self.parts: list[_Part] = []
        for _, param in params:
            self.parts.append(_Part(param, self.parts[-1].end if self.parts else 0))
        self.size = self.parts[-1].end
        self.group = self.parts[0].mesh.get_group()
        self.count = self.parts[0].mesh.size()

    def gather(self) -> list[torch.Tensor]:
        """All parameters whole."""
        own = torch.cat([part.sent() for part in self.parts])
        sent = own.new_empty(self.count * self.size)
        _all_gather(sent, own, group=self.group)
        return [part.whole(sent.view(self.count, self.size)) for part in self.parts]

    def mean(self, gradients: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """This process's part of the gradients' mean over the processes; a missing one counts as 0, None: none has it.

        They are (processes, numbers of a row) when they are sent, with a flag for each that is there.
        """
        some = self.parts[0].local
        width = self.size + len(self.parts)
        rows = some.new_zeros(self.count, width)
        for part, gradient in zip(self.parts, gradients, strict=True):
            if gradient is not None:
                part.give(gradient.to_dense() if gradient.is_sparse else gradient, rows)
        rows[:, self.size :] = rows.new_tensor([float(gradient is not None) for gradient in gradients])
        own = rows.new_empty(width)
        _reduce_scatter(own, rows.view(-1), group=self.group)
        there = [True] * len(self.parts)
        if any(gradient is None for gradient in gradients):
            there = [flag > 0 for flag in own[self.size :].tolist()]
        own /= self.count
        return [part.taken(own) if known else None for part, known in zip(self.parts, there, strict=True)]


class _Saved(NamedTuple):
    """What autograd holds of a parameter that is whole for a while: which one, and the view of it."""

    number: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class Shards:
    """The parameters of a unit, of which each process has a part. `again`: they are gathered for the backward pass a
    second time, for which autograd then holds none of them.

    In the backward pass `_Again` runs before and `_Gathered` behind all operations of the unit: autograd takes what was
    made last first. Both depend on nothing but a number in the objective, so all processes run them, in one order.
    """

    def __init__(self, params: Sequence[torch.nn.Parameter], again: bool) -> None:
        self.params, self.gathers_again = list(params), again
        by_type: dict[torch.dtype, list[tuple[int, torch.nn.Parameter]]] = {}
        for number, param in enumerate(self.params):
            by_type.setdefault(param.dtype, []).append((number, param))
        self.flats = [_Flat(group) for group in by_type.values()]
        self.whole: list[torch.Tensor] = []  # in the forward pass: as long as they are here, nothing else gets their
        self.numbers: dict[int, int] = {}  # addresses, by which they are known: of a storage -> number of a parameter
        self.kept: list[torch.Tensor] | None = None  # those that are whole in the backward pass
        self.token: torch.Tensor | None = None

    def open(self) -> list[torch.Tensor]:
        """Before the operations of the forward pass: all parameters whole."""
        anchor = torch.zeros((), device=self.params[0].device, requires_grad=torch.is_grad_enabled())
        self.kept = None
        self.token, *self.whole = _Gathered.apply(self, anchor, *self.params)  # type: ignore[no-untyped-call]
        self.numbers = {tensor.untyped_storage()._cdata: number for number, tensor in enumerate(self.whole)}
        return self.whole

    def close(self) -> torch.Tensor | None:
        """After the operations of the forward pass: a 0 that the objective has to depend on; None without gradients."""
        token, self.token, self.whole, self.numbers = self.token, None, [], {}
        if token is None or not token.requires_grad:
            return None
        return _Again.apply(self, token) if self.gathers_again else token  # type: ignore[no-untyped-call]

    def gather(self) -> list[torch.Tensor]:
        """All parameters whole."""
        found: dict[int, torch.Tensor] = {}
        for flat in self.flats:
            found.update(zip(flat.numbers, flat.gather(), strict=True))
        return [found[number] for number in range(len(self.params))]

    def mean(self, gradients: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """This process's part of the mean of gradients; None for a parameter without."""
        found: dict[int, torch.Tensor | None] = {}
        for flat in self.flats:
            found.update(zip(flat.numbers, flat.mean([gradients[number] for number in flat.numbers]), strict=True))
        return [found[i] if param.requires_grad else None for i, param in enumerate(self.params)]

    def pack(self, tensor: torch.Tensor) -> _Saved | torch.Tensor:
        """What autograd holds of a tensor in the unit."""
        number = self.numbers.get(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else None
        if number is None:
            return tensor
        return _Saved(number, tensor.size(), tensor.stride(), int(tensor.storage_offset()))

    def unpack(self, saved: _Saved | torch.Tensor) -> torch.Tensor:
        """The tensor."""
        if isinstance(saved, torch.Tensor):
            return saved
        if self.kept is None:
            self.kept = self.gather()
        return self.kept[saved.number].as_strided(saved.size, saved.stride, saved.offset)


class _Gathered(torch.autograd.Function):
    """The whole parameters; going back, the mean of their gradients."""

    @staticmethod
    def forward(ctx: Context, shards: Shards, anchor: torch.Tensor, *params: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.shards = shards
        ctx.set_materialize_grads(False)
        whole = shards.gather()
        ctx.mark_non_differentiable(*(w for w, p in zip(whole, params, strict=True) if not p.requires_grad))
        return anchor.clone(), *whole

    @staticmethod
    def backward(ctx: Context, _: torch.Tensor, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        ctx.shards.kept = None
        return None, None, *ctx.shards.mean(gradients)


class _Again(torch.autograd.Function):
    """Nothing; going back, the parameters are made whole."""

    @staticmethod
    def forward(ctx: Context, shards: Shards, token: torch.Tensor) -> torch.Tensor:
        ctx.shards = shards
        return token.clone()

    @staticmethod
    def backward(ctx: Context, gradient: torch.Tensor) -> tuple[None, torch.Tensor]:
        ctx.shards.kept = ctx.shards.gather()
        return None, gradient


class _Sum(torch.autograd.Function):
    """The sum over the processes of a number that each has of its own part."""

    @staticmethod
    def forward(ctx: Context, number: torch.Tensor, group: torch.distributed.ProcessGroup) -> torch.Tensor:
        total = number.clone()
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Context, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


def sum_of_squares(params: Sequence[torch.Tensor]) -> torch.Tensor:
    """That of all numbers of these parameters, of which some may be in parts."""
    whole = [param for param in params if not isinstance(param, DTensor)]
    split = [param for param in params if isinstance(param, DTensor)]
    equal = [param.to_local() for param in split if isinstance(param.placements[0], Replicate)]
    parts = [param.to_local() for param in split if not isinstance(param.placements[0], Replicate)]
    sums = [values.square().sum() for values in (*whole, *equal)]
    if parts:
        own = torch.stack([values.square().sum() for values in parts]).sum()
        sums.append(_Sum.apply(own, split[0].device_mesh.get_group()))  # type: ignore[no-untyped-call]
    return torch.stack(sums).sum()
