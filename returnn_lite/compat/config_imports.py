"""The module names that configs import: resolvable while a `config_imports()` is open, and only then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from returnn_lite.compat import config_dims
from returnn_lite.compat.tf import eval_names
from returnn_lite.errors import did_you_mean


def _helpers() -> Mapping[str, Any]:
    return {**eval_names(), **config_dims.NAMES}


def _dims() -> Mapping[str, Any]:
    return config_dims.NAMES


# module name -> the names in it
MODULES: dict[str, Callable[[], Mapping[str, Any]]] = {
    "returnn": dict,
    "returnn.tensor": _dims,
    "returnn.tf": dict,
    "returnn.tf.util": dict,
    "returnn.tf.util.data": _dims,
    "returnn.tf.util.basic": _helpers,
}
# old flat name -> the name of the same module today
OLD_NAMES = {"TFUtil": "returnn.tf.util.basic", "returnn.TFUtil": "returnn.tf.util.basic"}


@contextmanager
def config_imports() -> Iterator[None]:
    """While open, `returnn.tensor`, `returnn.tf.util.data`, `TFUtil` … are importable; an installed package wins."""
    finder = _Finder()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in finder.made:
            sys.modules.pop(name, None)


class _Finder(MetaPathFinder, Loader):
    """Makes the modules of `MODULES`; stands last, so it is asked only for what is not installed."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of a known name."""
        if fullname not in MODULES and fullname not in OLD_NAMES:
            return None
        is_package = any(name.startswith(fullname + ".") for name in (*MODULES, *OLD_NAMES))
        return ModuleSpec(fullname, self, is_package=is_package)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module; for an old name the module of today's name."""
        self.made.append(spec.name)
        if spec.name in OLD_NAMES:
            __import__(OLD_NAMES[spec.name])
            return sys.modules[OLD_NAMES[spec.name]]
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Puts the names into it."""
        if isinstance(module, _Module) and not module.filled:
            module.filled = True
            module.__dict__.update(MODULES[module.__name__]())


class _Module(ModuleType):
    """A stand-in module; says so when it is asked for a name it lacks."""

    filled = False

    def __getattr__(self, name: str) -> Any:
        known = [n for n in self.__dict__ if not n.startswith("_")]
        text = f"module {self.__name__!r} (stand-in) has no attribute {name!r}"
        raise AttributeError(text + did_you_mean(name, known))
