"""Python config files: executed with the options as their globals."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from returnn_lite.config.config_code import code_error, syntax_error
from returnn_lite.config_value import ConfigOptions
from returnn_lite.errors import ConfigError

MODULE_NAME = "__returnn_config__"
PACKAGE_NAME = "returnn"


def run_python(filename: str, source: bytes, options: ConfigOptions, config: object) -> None:
    """Executes a config; its globals *are* `options`, so each name it defines is an option, and stays live.

    Predefined: `config`, `__file__` (as given), `__name__`, `__package__`. A file in a directory with `__init__.py` is
    imported as a module of that package instead, and its globals are copied.
    """
    if filename.endswith(".py") and os.path.exists(os.path.join(os.path.dirname(filename), "__init__.py")):
        with _locate_errors(filename):
            module_globals = _import_from_package(filename, config)
        options.update({key: value for key, value in module_globals.items() if not key.startswith("__")})
        options["__file__"] = filename
        return
    options.update({"config": config, "__file__": filename, "__name__": MODULE_NAME, "__package__": PACKAGE_NAME})
    with _locate_errors(filename):
        exec(compile(source, filename, "exec", dont_inherit=True), options)


def _import_from_package(filename: str, config: object) -> dict[str, Any]:
    """Imports the file by its dotted name, the root of its package being put on sys.path; the module's globals."""
    path = os.path.abspath(filename)
    root, names = os.path.dirname(path), [os.path.splitext(os.path.basename(path))[0]]
    while os.path.exists(os.path.join(root, "__init__.py")):
        root, package = os.path.split(root)
        names.insert(0, package)
    if root not in sys.path:
        sys.path.insert(0, root)
    importlib.import_module(".".join(names[:-1]))
    spec = importlib.util.spec_from_file_location(".".join(names), path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    module.__dict__["config"] = config
    spec.loader.exec_module(module)
    return vars(module)


@contextmanager
def _locate_errors(filename: str) -> Iterator[None]:
    """Turns an exception of the config's code into a ConfigError that names file and line."""
    try:
        yield
    except ConfigError:
        raise
    except SyntaxError as exc:
        raise syntax_error(exc, filename) from exc
    except Exception as exc:
        walked = traceback.walk_tb(exc.__traceback__)
        frames = [(frame, line) for frame, line in walked if _is_file(frame.f_code.co_filename, filename)]
        if not frames:
            raise ConfigError(filename, f"{type(exc).__name__}: {exc}") from exc
        raise code_error(exc, frames[-1]) from exc


def _is_file(name: str, filename: str) -> bool:
    return os.path.abspath(name) == os.path.abspath(filename)
