"""`Util` = `returnn.util.basic` and other modules that need no torch."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

from returnn_lite.behavior_version import BehaviorVersion
from returnn_lite.datasets.numbers_dict import NumbersDict
from returnn_lite.engine.models.pretrain import WrapEpochValue
from returnn_lite.not_specified import NotSpecified


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


def py2_utf8_str_to_unicode(s: str) -> str:
    """The text as it is."""
    return s


def names() -> dict[str, Any]:
    """The names of the module."""
    return {
        "cleanup_env_var_path": cleanup_env_var_path,
        "generic_import_module": generic_import_module,
        "py2_utf8_str_to_unicode": py2_utf8_str_to_unicode,
        "BehaviorVersion": BehaviorVersion,
        "NotSpecified": NotSpecified,
        "NumbersDict": NumbersDict,
        "PY3": True,
        "unicode": str,
        "long": int,
    }


def top() -> dict[str, Any]:
    """`returnn.util`."""
    return {"NumbersDict": NumbersDict}


def pretrain() -> dict[str, Any]:
    """`Pretrain`."""
    return {"WrapEpochValue": WrapEpochValue}


def exchook() -> dict[str, Any]:
    """`better_exchook`: exceptions are shown as they are."""
    return {"install": lambda: None}
