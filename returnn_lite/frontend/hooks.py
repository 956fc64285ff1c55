"""Functions that are called after a method of one object."""

from __future__ import annotations

from typing import Any

from returnn_lite.frontend.errors import missing_name
from returnn_lite.frontend.types import Hook

_ATTRIBUTE = "_hooks_of_{}"


class Handle:
    """A registered hook; `remove` unregisters it."""

    def __init__(self, hooks: list[Hook], hook: Hook) -> None:
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        """Takes the hook off."""
        self._hooks[:] = [hook for hook in self._hooks if hook is not self._hook]


def setup_post_hook_on_method(obj: object, attr: str, hook: Hook, *, prepend: bool = False) -> Handle:
    """After each call of a method of this object `hook(obj, args, kwargs, result)`; what it returns is the result.

    Several are called in order; `prepend` puts one first. Other objects of the class are not concerned.
    """
    key = _ATTRIBUTE.format(attr)
    hooks: list[Hook] | None = vars(obj).get(key)
    if hooks is None:
        hooks = vars(obj)[key] = []
        _install(obj, attr, key)
    own = _once(hook)
    hooks.insert(0 if prepend else len(hooks), own)
    return Handle(hooks, own)


def _once(hook: Hook) -> Hook:
    """The hook as an object of its own, so that the same function may be set twice."""
    return lambda obj, args, kwargs, result: hook(obj, args, kwargs, result)


def _install(obj: Any, attr: str, key: str) -> None:
    if attr.startswith("__"):  # looked up in the class
        obj.__class__ = _hooked_class(type(obj), attr, key)
        return
    original = getattr(obj, attr)
    vars(obj)[attr] = lambda *args, **kwargs: _with_hooks(obj, key, original, args, kwargs)


def _hooked_class(cls: type, attr: str, key: str) -> type:
    original = getattr(cls, attr)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _with_hooks(self, key, lambda *a, **k: original(self, *a, **k), args, kwargs)

    call.__doc__ = original.__doc__
    return type(cls.__name__, (cls,), {attr: call, "__module__": cls.__module__, "__qualname__": cls.__qualname__})


def _with_hooks(obj: Any, key: str, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = original(*args, **kwargs)
    for hook in tuple(vars(obj).get(key, ())):
        result = hook(obj, args, kwargs, result)
    return result


__getattr__ = missing_name("rf.hooks", globals())
