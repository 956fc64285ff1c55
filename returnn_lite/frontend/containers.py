"""Lists of modules and parameters, modules one after the other, functions as modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.types import Nested, Part

T = TypeVar("T")


class Functional(Module):
    """A function as a module; `attribs` become attributes."""

    def __init__(self, func: Callable[..., Any], *, attribs: Mapping[str, Any] | None = None) -> None:
        self.func = func
        for name, value in (attribs or {}).items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self.func, '__qualname__', self.func)})"

    def get_default_name(self) -> str:
        """The name of the function."""
        return str(getattr(self.func, "__name__", None) or super().get_default_name())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function gives."""
        return self.func(*args, **kwargs)


class _List(Module, Generic[T]):
    """Values as attributes "0", "1" …, or by the keys of a dict; a key that is a number becomes the position."""

    def __init__(self, *values: Any) -> None:
        found: Any = values
        if len(values) == 1 and isinstance(values[0], _List):
            found = vars(values[0]) if not isinstance(values[0], type(self)) else dict(values[0]._named())
        elif len(values) == 1 and isinstance(values[0], Mapping):
            found = values[0]
        elif len(values) == 1 and isinstance(values[0], Iterable) and not isinstance(values[0], self._kind()):
            found = tuple(values[0])
        named = found.items() if isinstance(found, Mapping) else enumerate(found)
        for i, (key, value) in enumerate(named):
            self._put(str(i) if str(key).isdigit() else str(key), value)

    @staticmethod
    def _kind() -> type:
        raise NotImplementedError

    def _checked(self, value: Any) -> T:
        raise NotImplementedError

    def _put(self, key: str, value: Any) -> None:
        setattr(self, key, self._checked(value))

    def _named(self) -> list[tuple[str, T]]:
        kind = self._kind()
        found: list[Any] = [(key, value) for key, value in vars(self).items() if isinstance(value, kind)]
        return found

    def _replace(self, named: Iterable[tuple[str, T]]) -> None:
        """These values in place of all; numbers among the keys become positions."""
        values = list(named)
        for key, _ in self._named():
            delattr(self, key)
        for i, (key, value) in enumerate(values):
            self._put(str(i) if key.isdigit() else key, value)

    def append(self: Any, value: Any) -> Any:
        """Puts one at the end; its name is the number of those before."""
        self._put(str(len(self)), value)
        return self

    def extend(self: Any, values: Iterable[Any]) -> Any:
        """Puts several at the end."""
        for value in values:
            self.append(value)
        return self

    def __len__(self) -> int:
        return len(self._named())

    def __iter__(self) -> Iterator[T]:
        return iter([value for _, value in self._named()])

    def _key(self, index: Any) -> str:
        if isinstance(index, str):
            if index not in dict(self._named()):
                raise KeyError(index)
            return index
        key, _ = self._named()[int(index)]
        return key

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)({key: value for key, value in self._named()[index]})
        return getattr(self, self._key(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            named = self._named()
            given = value._named() if isinstance(value, _List) else [(str(i), v) for i, v in enumerate(value)]
            named[index] = given
            self._replace(named)
        elif isinstance(index, str):
            self._put(index, value)
        else:
            self._put(self._key(index), value)

    def __delitem__(self, index: Any) -> None:
        named = self._named()
        if isinstance(index, str):
            delattr(self, self._key(index))
            return
        del named[index]
        self._replace(named)


class ModuleList(_List[Module]):
    """Modules, one iterable or dict of them, or another list. What is callable becomes a module."""

    @staticmethod
    def _kind() -> type:
        return Module

    def _checked(self, value: Any) -> Module:
        if isinstance(value, Module):
            return value
        if not callable(value):
            raise WrongUse(f"a {type(self).__name__} is made of modules and functions, but got {value!r} instead")
        return Functional(value)

    def items(self) -> list[tuple[str, Module]]:
        """Names and modules."""
        return self._named()

    def keys(self) -> list[str]:
        """Names."""
        return [key for key, _ in self._named()]

    def values(self) -> list[Module]:
        """Modules."""
        return [value for _, value in self._named()]


class Sequential(ModuleList):
    """Modules one after the other. All get the keywords of the call."""

    def __call__(self, inp: Any, *, collected_outputs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """The result of the last one; `collected_outputs` gets all, by name."""
        for name, module in self.items():
            inp = module(inp, **kwargs)
            if collected_outputs is not None:
                collected_outputs[name] = inp
        return inp


def sequential(source: Nested, *modules: Part) -> Nested:
    """Applies modules one after the other."""
    return Sequential(*modules)(source)


class ParameterList(_List[Parameter]):
    """Parameters, one iterable or dict of them, or another list."""

    @staticmethod
    def _kind() -> type:
        return Parameter

    def _checked(self, value: Any) -> Parameter:
        if not isinstance(value, Parameter):
            raise WrongUse(f"a ParameterList is made of parameters, but got {value!r} instead")
        return value
