"""`Util` = `returnn.util.basic` and other modules that need no torch."""

from __future__ import annotations

import getpass
import importlib
import importlib.metadata
import itertools
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from returnn_lite.behavior_version import BehaviorVersion
from returnn_lite.datasets.numbers_dict import NumbersDict
from returnn_lite.engine.models.pretrain import WrapEpochValue
from returnn_lite.engine.report import hms
from returnn_lite.not_specified import NotSpecified
from returnn_lite.schedule.lr_file import better_repr
from returnn_lite.version import __version__


def cleanup_env_var_path(env_var: str, path_prefix: str) -> None:
    """Removes the entries at or below `path_prefix` from a colon-separated variable of the environment."""
    if env_var not in os.environ:
        return
    prefix = path_prefix.rstrip("/")
    kept = [p for p in os.environ[env_var].split(":") if p.rstrip("/") != prefix and not p.startswith(prefix + "/")]
    os.environ[env_var] = ":".join(kept)


def generic_import_module(filename: str) -> ModuleType:
    """A module by its name, or by its file; then the topmost folder without `__init__.py` is put on sys.path."""
    if "/" not in filename:
        return importlib.import_module(filename)
    path = os.path.abspath(filename).rstrip("/")
    folder, names = os.path.dirname(path), [os.path.splitext(os.path.basename(path))[0]]
    while os.path.exists(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        names.insert(0, package)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(".".join(names))


def get_login_username() -> str:
    """Who runs this; "unknown" where the system does not know."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


def describe_returnn_version() -> str:
    """The version of this package, as a text for logs."""
    return f"returnn_lite {__version__}"


def describe_torch_version() -> str:
    """The version of torch, as a text for logs."""
    return importlib.metadata.version("torch")


def cf(filename: str) -> str:
    """The file's name: there is no cache manager that would copy it."""
    return filename


def try_run(
    func: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    catch_exc: type[BaseException] = Exception,
    default: Any = None,
) -> Any:
    """What the function gives, or the default after such an exception."""
    try:
        return func(*args, **(kwargs or {}))
    except catch_exc:
        return default


def uniq(seq: Iterable[Any]) -> list[Any]:
    """The items without those that are equal to the one before."""
    return [key for key, _ in itertools.groupby(seq)]


def dict_joined(*dicts: Mapping[Any, Any]) -> dict[Any, Any]:
    """All entries; of several with a key the last."""
    return {key: value for one in dicts for key, value in one.items()}


def py2_utf8_str_to_unicode(s: str) -> str:
    """The text as it is."""
    return s


def names() -> dict[str, Any]:
    """The names of the module."""
    return {
        "cleanup_env_var_path": cleanup_env_var_path,
        "generic_import_module": generic_import_module,
        "py2_utf8_str_to_unicode": py2_utf8_str_to_unicode,
        "get_login_username": get_login_username,
        "get_hostname": socket.gethostname,
        "describe_returnn_version": describe_returnn_version,
        "describe_torch_version": describe_torch_version,
        "cf": cf,
        "try_run": try_run,
        "uniq": uniq,
        "dict_joined": dict_joined,
        "better_repr": better_repr,
        "hms": hms,
        "OptionalNotImplementedError": type("OptionalNotImplementedError", (NotImplementedError,), {}),
        "BehaviorVersion": BehaviorVersion,
        "NotSpecified": NotSpecified,
        "NumbersDict": NumbersDict,
        "PY3": True,
        "unicode": str,
        "long": int,
    }


def top() -> dict[str, Any]:
    """`returnn.util`."""
    return {"NumbersDict": NumbersDict, "BehaviorVersion": BehaviorVersion, "NotSpecified": NotSpecified}


def package() -> dict[str, Any]:
    """`returnn`."""
    root = os.path.dirname(os.path.abspath(importlib.import_module("returnn_lite").__file__ or ""))
    return {"__version__": __version__, "__long_version__": describe_returnn_version(), "__root_dir__": root}


def pretrain() -> dict[str, Any]:
    """`Pretrain`."""
    return {"WrapEpochValue": WrapEpochValue}


def exchook() -> dict[str, Any]:
    """`better_exchook`: exceptions are shown as they are."""
    return {"install": lambda: None}
