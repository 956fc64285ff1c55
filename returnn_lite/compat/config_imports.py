"""The module names that configs import: resolvable while a `config_imports()` is open, and only then."""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from returnn_lite.compat.module_names import MODULES, OLD_NAMES, OURS, ROOM, TF
from returnn_lite.compat.modules.commands import stand_in_commands
from returnn_lite.compat.refusals import unknown
from returnn_lite.compat.running import RUNNING
from returnn_lite.errors import closest, did_you_mean, package_folder

VERSIONS = ("__version__", "__long_version__", "__root_dir__")  # of the module `returnn`


@contextmanager
def config_imports(config: Any = None) -> Iterator[None]:
    """While open, `TFUtil`, `returnn.tensor`, `tensorflow` … are importable.

    An installed package wins over a stand-in, except for `tensorflow`: code of configs gets the stand-in, since it is
    handed torch tensors, and installed packages get TensorFlow, if it is installed. `config`: what
    `get_global_config()` gives.
    """
    finder = _Finder()
    below = _Below(finder)
    sys.meta_path[:] = [below, *sys.meta_path, finder]
    RUNNING.config = config
    try:
        with stand_in_commands(), patch.object(builtins, "__import__", _tensorflow_for_configs(builtins.__import__)):
            yield
    finally:
        sys.meta_path.remove(below)
        sys.meta_path.remove(finder)
        for name in finder.made:
            sys.modules.pop(name, None)
        RUNNING.config = RUNNING.context = None


def offer_modules() -> None:
    """Makes the modules below `returnn` importable from now on, for scripts that have a package of this name."""
    finder = _Finder()
    sys.meta_path[:] = [_Below(finder), *sys.meta_path, finder]


def is_known(name: str) -> bool:
    """Whether there is a stand-in for this module."""
    return _is_found(name) or name.split(".", 1)[0] == TF


def _is_found(name: str) -> bool:
    """The same for those that `_Finder` makes."""
    return name in MODULES or name in OLD_NAMES or name.startswith("returnn.tf.compat.") or _ours(name) is not None


def _ours(name: str) -> str | None:
    """The module of ours that stands under this name."""
    for public, own in OURS.items():
        if name == public or name.startswith(f"{public}."):
            found = own + name[len(public) :]
            parent = found.rpartition(".")[0]
            if name != public and (_ours(name.rpartition(".")[0]) is None or not _is_package(parent)):
                return None
            return found if importlib.util.find_spec(found) is not None else None
    return None


def _is_package(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


class _Finder(MetaPathFinder, Loader):
    """Makes the modules of `MODULES`; stands last, so it is asked only for what is not installed."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.specs: dict[str, ModuleSpec | None] = {}  # of modules that have one already

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of a known name."""
        if not _is_found(fullname):
            _refuse_module(fullname)
            return None
        own = _ours(fullname)
        if own is not None:
            return ModuleSpec(fullname, self, is_package=_is_package(own))
        known = (*MODULES, *OLD_NAMES, *OURS)
        is_package = any(name.startswith(fullname + ".") for name in known)
        return ModuleSpec(fullname, self, is_package=is_package or fullname in OLD_NAMES)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module; for an old name the module of today's name."""
        self.made.append(spec.name)
        own = _ours(spec.name)
        if own is not None:
            module = importlib.import_module(own)
            self.specs[spec.name] = module.__spec__
            return module
        if spec.name in OLD_NAMES:
            return importlib.import_module(OLD_NAMES[spec.name])
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Puts the names into it."""
        if isinstance(module, _Module):
            module.fill()
            return
        public = module.__spec__.name if module.__spec__ is not None else ""
        own = self.specs.pop(public, None)
        if own is not None:
            module.__spec__ = own
            self._register_loaded(public, own.name)

    def _register_loaded(self, public: str, own: str) -> None:
        """Modules below that are loaded already, so that importing them by the public name sets no attribute.

        An attribute of the package may be the function of the same name.
        """
        for name in [name for name in sys.modules if name.startswith(f"{own}.")]:
            other = public + name[len(own) :]
            if other not in sys.modules:
                sys.modules[other] = sys.modules[name]
                self.made.append(other)


def _frontend_modules() -> list[str]:
    """The modules below `returnn.frontend`."""
    folder = Path(package_folder()) / "frontend"
    files = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py")]
    return [".".join(file.parts) for file in files]


def _refuse_module(name: str) -> None:
    """ModuleNotFoundError, which code of configs may catch, for a module below `returnn` that is not known here."""
    if name.split(".", 1)[0] == "returnn_import":
        raise ModuleNotFoundError(
            f"No module named {name!r}: it would be downloaded, which is not supported", name=name
        )
    if name.startswith("returnn."):
        hint = did_you_mean(name, [*MODULES, *OLD_NAMES])
        if name == "returnn.frontend.checkpoint":
            hint = "; model files are the engine's, see import_model_train_epoch1 and preload_from_files"
        elif name.startswith("returnn.frontend."):
            found = closest(name.removeprefix("returnn.frontend."), _frontend_modules())
            own = f'; did you mean "returnn.frontend.{found}"?'
            hint = own if found else "; import what is in it from returnn.frontend"
        raise ModuleNotFoundError(f"No module named {name!r} here{hint}", name=name)


class _Below(MetaPathFinder):
    """Finds the modules of a package of ours that stands under another name.

    It stands first: else Python would load their files once more, as other modules with other classes.
    """

    def __init__(self, finder: _Finder) -> None:
        self.finder = finder

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of a module below such a package."""
        for public, own in OURS.items():
            if fullname.startswith(f"{public}.") and getattr(sys.modules.get(public), "__name__", "") == own:
                return self.finder.find_spec(fullname)
        return None


def _tensorflow_for_configs(real: Callable[..., Any]) -> Callable[..., Any]:
    """What `import` calls: the stand-in for `tensorflow` where no installed package asks, else what it always called.

    The stand-in is not in `sys.modules`, where everybody would find it, or a real TensorFlow hide it.
    """
    installed = (*site.getsitepackages(), sysconfig.get_path("stdlib"), site.getusersitepackages())

    @functools.cache
    def stand_in(name: str) -> ModuleType:
        module = _Module(name)
        module.fill()
        return module

    def find(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:  # noqa: A002
        if level == 0 and name.split(".", 1)[0] == TF:
            asking = sys._getframe(1).f_code.co_filename
            if not asking.startswith((*installed, "<frozen")):
                return stand_in(name if fromlist else TF)
        return real(name, globals, locals, fromlist, level)

    return find


def contents(name: str) -> Any:
    """What is in a module: names, or an object with them as attributes."""
    own = _ours(name)
    if own is not None:
        return vars(importlib.import_module(own))
    if name in MODULES:
        module, _, function = MODULES[name].partition(":")
        return getattr(importlib.import_module(ROOM + module), function)() if module else {}
    found = importlib.import_module(ROOM + "tensors").tf()
    for part in name.split(".")[1:] if name.startswith(TF) else ():
        found = vars(found).get(part, {})
        if isinstance(found, Mapping):
            break
    return found


class _Module(ModuleType):
    """A stand-in module. A name that it lacks fails where it is used, not where it is imported."""

    filled = False
    source: Any = None  # an object that knows better what to do about unknown names

    def fill(self) -> None:
        """Puts the names into it, once."""
        if self.filled:
            return
        self.filled = True
        found = contents(self.__name__)
        self.source = None if isinstance(found, Mapping) else found
        members = found if isinstance(found, Mapping) else vars(found)
        public = {key: value for key, value in members.items() if not key.startswith("__") or key in VERSIONS}
        self.__dict__.update(public)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.source is not None:
            return getattr(self.source, name)
        if _is_found(f"{self.__name__}.{name}"):
            return importlib.import_module(f"{self.__name__}.{name}")
        return unknown(self.__name__, name, [n for n in self.__dict__ if not n.startswith("_")])
