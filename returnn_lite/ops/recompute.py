"""Values that are computed again for the gradient in place of being kept (Chen et al., 2016), by the operations alone.

    with recomputed():
        y = block(x)

What the operations inside save for the gradient is freed as soon as nobody else holds it. Going back, the operations
that made it run again, once, with the random numbers they had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
)

_STATISTICS = ("running_mean", "running_var")  # older operations change them without declaring it
# An argument or result of an operation of torch, or the operation: no static type is like that.
Value: TypeAlias = Any
# What autograd holds of a tensor that it saves, and the way back (torch.autograd.graph.saved_tensors_hooks).
Hooks: TypeAlias = tuple[Callable[[Tensor], Value], Callable[[Value], Tensor]]


@contextmanager
def recomputed(hooks: Hooks | None = None) -> Iterator[None]:
    """While open, tensors that are saved for the gradient are those from outside alone; all others are made again.
    `hooks`: how those from outside are saved; None: as they are.

    Inside of another one, and without gradients, it has no effect. Tensors from outside must not be changed in place
    until the gradient is there, but for statistics that nothing inside depends on.
    """
    if not torch.is_grad_enabled() or any(isinstance(m, _Recorder) for m in _get_current_dispatch_mode_stack()):
        yield
        return
    tape = Tape(hooks)
    with _Recorder(tape), torch.autograd.graph.saved_tensors_hooks(tape.pack, unpack):
        yield


class Place(NamedTuple):
    """Where a tensor is in a storage that is made again."""

    storage: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    conjugate: bool
    negative: bool

    def of(self, storage: Tensor) -> Tensor:
        """The tensor, in the storage of another one."""
        found = torch.empty(0, dtype=self.dtype, device=storage.device)
        found.set_(storage.untyped_storage(), self.offset, self.size, self.stride)
        found = found.conj() if self.conjugate else found
        return torch._neg_view(found) if self.negative else found


class Kept(NamedTuple):
    """A tensor from outside; `written`: an operation changes it, which happens once only."""

    tensor: Outside | Tensor
    written: bool


class Step(NamedTuple):
    """One operation. Storages are numbers: those that it makes (None: none of its own), reads and changes."""

    function: Callable[..., Value]
    args: list[Any]
    kwargs: dict[str, Any]
    makes: list[int | None]
    reads: set[int]
    writes: set[int]
    random: tuple[torch.Generator, Tensor] | None


class Saved(NamedTuple):
    """What autograd holds for a tensor. `writes`: how often its storage was changed until then."""

    tape: Tape
    place: Place
    writes: int


class Outside(NamedTuple):
    """A tensor from outside, as hooks hold it."""

    held: Value
    unpack: Callable[[Value], Tensor]


def unpack(saved: Saved | Outside | Tensor) -> Tensor:
    """The tensor that was saved."""
    if isinstance(saved, Outside):
        return saved.unpack(saved.held)
    return saved if isinstance(saved, Tensor) else saved.tape.value(saved)


class Tape:
    """The operations inside, in order, and which storages are saved how often. `hooks`: for tensors from outside."""

    def __init__(self, hooks: Hooks | None = None) -> None:
        self._hooks = hooks
        self.steps: list[Step] = []
        self._numbers: dict[int, int] = {}  # address of a storage -> its number
        self._alive: list[StorageWeakRef] = []  # as long as they are here no other storage gets the address
        self._writes: Counter[int] = Counter()
        self._saved: Counter[int] = Counter()
        self._values: dict[int, Tensor] = {}
        self._open: Counter[int] = Counter()  # how often each value is still asked for

    def number(self, tensor: Tensor) -> int | None:
        """The number of a storage that was made inside."""
        return self._numbers.get(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else None

    def pack(self, tensor: Tensor) -> Saved | Outside | Tensor:
        """What autograd holds instead of a tensor."""
        place = self._place(tensor)
        if place is None:
            return self._outside(tensor)
        self._saved[place.storage] += 1
        return Saved(self, place, self._writes[place.storage])

    def _outside(self, tensor: Tensor) -> Outside | Tensor:
        return tensor if self._hooks is None else Outside(self._hooks[0](tensor), self._hooks[1])

    def _place(self, tensor: Tensor) -> Place | None:
        number = self.number(tensor)
        if number is None:
            return None
        bits = (tensor.is_conj(), tensor.is_neg())
        return Place(number, tensor.size(), tensor.stride(), int(tensor.storage_offset()), tensor.dtype, *bits)

    def record(
        self,
        function: Value,
        args: Sequence[Value],
        kwargs: dict[str, Value],
        random: tuple[torch.Generator, Tensor] | None,
    ) -> Step:
        """The step of an operation that is about to run."""
        reads: set[int] = set()
        writes: set[int] = set()
        declared = {argument.name: argument for argument in function._schema.arguments}

        def held(value: Any, argument: Any) -> Any:
            written = argument.name in _STATISTICS or (argument.alias_info is not None and argument.alias_info.is_write)
            if isinstance(value, list | tuple):
                return [held(part, argument) for part in value]
            if not isinstance(value, Tensor):
                return value
            place = self._place(value)
            if place is None:
                return Kept(self._outside(value.detach()), written)
            reads.add(place.storage)
            if written:
                writes.add(place.storage)
            return place

        positional = [held(value, a) for value, a in zip(args, function._schema.arguments, strict=False)]
        named = {name: held(value, declared[name]) for name, value in kwargs.items()}
        return Step(function, positional, named, [], reads, writes, random)

    def add(self, step: Step, args: Sequence[Value], kwargs: dict[str, Value], result: Value) -> None:
        """Adds the step after it ran, and the storages that it made."""
        given = {_address(tensor) for tensor in _tensors([*args, *kwargs.values()])}
        for tensor in _tensors(result):
            address = _address(tensor)
            if tensor.layout is not torch.strided or address in given or address in self._numbers:
                step.makes.append(None)
                continue
            self._numbers[address] = number = len(self._alive)
            self._alive.append(StorageWeakRef(tensor.untyped_storage()))
            step.makes.append(number)
        self._writes.update(step.writes)
        if step.writes or any(number is not None for number in step.makes):
            self.steps.append(step)

    # --- going back ---------------------------------------------------------------------------------------------------

    def value(self, saved: Saved) -> Tensor:
        """A tensor that was saved. RuntimeError if it was changed in place since."""
        number = saved.place.storage
        if self._writes[number] != saved.writes:
            raise RuntimeError("a tensor needed for the gradient was modified in place within a checkpoint scope")
        if number not in self._values:
            self._values = self._run()
            self._open = self._saved.copy()
        found = saved.place.of(self._values[number])
        self._open[number] -= 1
        if not self._open[number]:
            del self._values[number]
        return found

    def _run(self) -> dict[int, Tensor]:
        """The saved storages by their numbers."""
        steps, last = self._needed()
        values: dict[int, Tensor] = {}
        # Some operations give less without gradients; nothing here requires any.
        with torch.enable_grad(), _disable_current_modes(), torch._C._DisableAutocast():
            for index, step in enumerate(steps):
                made = _tensors(_again(step, values))
                values.update((n, t) for n, t in zip(step.makes, made, strict=True) if n is not None)
                for number in step.reads.union(n for n in step.makes if n is not None):
                    if last[number] <= index and number not in self._saved:
                        values.pop(number, None)
        return values

    def _needed(self) -> tuple[list[Step], dict[int, int]]:
        """The steps that saved storages depend on, and the last of them that each storage is in."""
        needed, steps = set(self._saved), []
        for step in reversed(self.steps):
            if not needed.isdisjoint(step.makes) or not needed.isdisjoint(step.writes):
                needed |= step.reads
                steps.append(step)
        steps.reverse()
        return steps, {n: i for i, step in enumerate(steps) for n in (*step.makes, *step.reads) if n is not None}


class _Recorder(TorchDispatchMode):
    """Puts all operations onto a tape."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = tape

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Value:
        kwargs = kwargs or {}
        step = self.tape.record(func, args, kwargs, _random_state(func, args, kwargs))
        result = func(*args, **kwargs)
        self.tape.add(step, args, kwargs, result)
        return result


def _tensors(value: Value) -> list[Tensor]:
    """The tensors among arguments or results."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, list | tuple) else []


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else 0


def _random_state(
    function: Value, args: Sequence[Value], kwargs: dict[str, Value]
) -> tuple[torch.Generator, Tensor] | None:
    """The generator that an operation draws from, and its state before."""
    if torch.Tag.nondeterministic_seeded not in function.tags:
        return None
    generator = kwargs.get("generator")
    if generator is None:
        generator = _default_generator(next((t.device for t in _tensors(list(args))), kwargs.get("device")))
    return generator, generator.get_state()


def _default_generator(device: torch.device | str | None) -> torch.Generator:
    device = torch.device("cpu" if device is None else device)
    if device.type != "cuda":
        return torch.default_generator
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]


def _again(step: Step, values: dict[int, Tensor]) -> Value:
    """The result of a step, and no other effect but on `values`."""

    def given(value: Any) -> Any:
        if isinstance(value, Place):
            return value.of(values[value.storage])
        if isinstance(value, Kept):
            return unpack(value.tensor).clone() if value.written else unpack(value.tensor)
        return [given(part) for part in value] if isinstance(value, list) else value

    args, kwargs = [given(value) for value in step.args], {name: given(value) for name, value in step.kwargs.items()}
    if step.random is None:
        return step.function(*args, **kwargs)
    generator, state = step.random
    now = generator.get_state()
    generator.set_state(state)
    try:
        return step.function(*args, **kwargs)
    finally:
        generator.set_state(now)
