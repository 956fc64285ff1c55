"""`Module`: what has parameters and other modules as attributes, and is called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from returnn_lite.frontend import hooks
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.state import State
from returnn_lite.frontend.types import Attribute, Hook

Self = TypeVar("Self", bound="Module")


class Module:
    """Attributes that are modules are its children, those that are parameters its parameters, in order of creation.

    Parameters are named by the path of attributes, such as "layers.0.weight".
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; to be defined by each."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    def default_initial_state(self, *, batch_dims: Sequence[Dim]) -> State | None:
        """The states of the children that have one, by their names; None without any."""
        found = State()
        for name, child in self.named_children():
            state = child.default_initial_state(batch_dims=batch_dims)
            if state:
                found[name] = state
        return found or None

    def get_default_name(self) -> str:
        """The name of the class in lower case: "layer_norm"."""
        name = type(self).__name__.lstrip("_")
        name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
        return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()

    # --- what is in it ------------------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules among the attributes, each once."""
        seen: set[int] = set()
        for name, value in list(vars(self).items()):
            if isinstance(value, Module) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def children(self) -> Iterator[Module]:
        """The modules among the attributes."""
        for _, child in self.named_children():
            yield child

    def named_modules(
        self, *, recurse: bool = True, include_self: bool = True, prefix: str = "", memo: set[Module] | None = None
    ) -> Iterator[tuple[str, Module]]:
        """All modules by their names: itself (""), its children, their children …; each once, by its shortest name."""
        seen: set[int] = {id(self)}
        if include_self:
            yield prefix, self
        level: list[tuple[str, Module]] = [(prefix, self)]
        while level:
            below = []
            for name, module in level:
                for key, child in module.named_children():
                    if id(child) not in seen:
                        seen.add(id(child))
                        below.append((f"{name}.{key}" if name else key, child))
            yield from below
            level = below if recurse else []

    def modules(self, *, recurse: bool = True, include_self: bool = True) -> Iterator[Module]:
        """All modules."""
        for _, module in self.named_modules(recurse=recurse, include_self=include_self):
            yield module

    def named_parameters(self, *, recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """All parameters by their names, each once, in the order of the modules."""
        seen: set[int] = set()
        owners = self.named_modules() if recurse else [("", self)]
        for prefix, module in owners:
            for name, value in list(vars(module).items()):
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{prefix}.{name}" if prefix else name, value

    def parameters(self, *, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    @property
    def has_parameters(self) -> bool:
        """Whether there are any."""
        return next(self.parameters(), None) is not None

    def get_deep(self, target: str) -> Attribute:
        """The attribute of a path such as "layers.0.weight"; itself for ""."""
        found: Any = self
        for name in target.split(".") if target else ():
            if not isinstance(found, Module):
                raise AttributeError(f"{self} has no {target!r}: {found!r} is not a module")
            found = getattr(found, name)
        return found

    def set_deep(self, target: str, value: Attribute) -> None:
        """Sets the attribute of a path."""
        path, _, name = target.rpartition(".")
        if not name:
            raise ValueError("the path must not be empty")
        setattr(self.get_deep(path), name, value)

    # --- changes ------------------------------------------------------------------------------------------------------

    def apply(self: Self, fn: Callable[[Module], object]) -> Self:
        """Calls a function with the children's children first, itself last."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def to(self, *, device: str | None = None, dtype: str | None = None) -> None:
        """Moves all parameters to a device, and floats to a type."""
        for parameter in self.parameters():
            parameter.move(device=device, dtype=dtype)

    def register_forward_hook(self, hook: Hook, *, prepend: bool = False) -> hooks.Handle:
        """After each call `hook(module, args, kwargs, result)`; what it returns is the result."""
        return hooks.setup_post_hook_on_method(self, "__call__", hook, prepend=prepend)
