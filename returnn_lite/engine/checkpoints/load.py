"""Parameters from model files into a network."""

from collections.abc import Iterable, Mapping

import torch

from returnn_lite.engine.checkpoints.checkpoint import read_entry, read_model, read_step
from returnn_lite.engine.checkpoints.conversion import convert
from returnn_lite.engine.checkpoints.finite import described, infinite_constants, nonfinite
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log

Params = Mapping[str, torch.Tensor]
SHOWN = 10  # names in an error


def load_params(
    params: Params,
    filename: str,
    log: Log,
    *,
    skip: Iterable[str] = (),
    optional: Iterable[str] = (),
    ignore_missing: bool = False,
    must_be_finite: bool = True,
    option: str = "load",
) -> int:
    """Copies the file's values into all parameters but those in `skip`; further entries of the file are ignored, and
    so are parameters in `optional` that the file lacks.

    Returns the file's global step (0 if it has none).  Raises ConfigError (path: `option`) naming what is missing, has
    another shape, or is NaN or infinite.
    """
    file = read_model(filename, option)
    wanted = {name: name for name in params if name not in set(skip)}
    values = with_conversions({name: tuple(param.shape) for name, param in params.items()}, file, log)
    wanted = {name: key for name, key in wanted.items() if key in values or name not in set(optional)}
    copy_values(
        params, values, wanted, filename, log, path=option, ignore_missing=ignore_missing, must_be_finite=must_be_finite
    )
    return int(file["global_step"]) if "global_step" in file else 0


def stored_step(filename: str, missing: int = 0) -> int:
    """The global step that a model file was written at; `missing` if it does not say."""
    return read_step(filename, missing)


def stored_epoch(filename: str) -> int | None:
    """The epoch that a model file was written after; None if it does not say."""
    return read_entry(filename, "epoch")


def with_conversions(shapes: Mapping[str, tuple[int, ...]], values: Params, log: Log) -> Params:
    """The file's values, and those of `shapes` that it has only in another form (`engine/conversion.py`)."""
    found = convert(shapes, values)
    for name, origins in found.origins.items():
        log.v2(f"parameter {name} is made from {', '.join(origins)} of the file")
    for scope, remark in found.remarks.items():
        log.v2(f"note: {scope}: {remark}")
    return {**values, **found.values}


def copy_values(
    params: Params,
    values: Params,
    wanted: Mapping[str, str],
    filename: str,
    log: Log,
    *,
    path: str,
    ignore_missing: bool,
    must_be_finite: bool = True,
) -> set[str]:
    """Copies `values[wanted[name]]` into `params[name]`; returns the names which were set.

    Raises ConfigError (its path: `path`) for missing values, other shapes, and values that are not finite.
    """
    missing = [f"{name} {tuple(params[name].shape)}" for name, key in wanted.items() if key not in values]
    if missing and not ignore_missing:
        raise ConfigError(path, _lacks(filename, missing, wanted, values))
    found = {name: values[key] for name, key in wanted.items() if key in values}
    wrong = [
        f"{name} is {tuple(params[name].shape)}, in the file {tuple(value.shape)}"
        for name, value in found.items()
        if params[name].shape != value.shape
    ]
    if wrong:
        raise ConfigError(path, f"model file {filename!r} has parameters of other shapes: {'; '.join(wrong)}")
    _check_finite(params, found, filename, log, path=path, must_be_finite=must_be_finite)
    if missing:
        log.v2(f"model file {filename!r} lacks parameters, which stay as initialised: {', '.join(missing)}")
    with torch.no_grad():
        for name, value in found.items():
            params[name].copy_(value)
    return set(found)


def _lacks(filename: str, missing: list[str], wanted: Mapping[str, str], values: Params) -> str:
    """What is missing, and what the file has that nobody wants."""
    absent = [key for key in wanted.values() if key not in values]
    hints = {did_you_mean(key, list(values)) for key in absent} - {""}
    unused = sorted(set(values) - set(wanted.values()) - {"global_step"})
    shown = [f"{name} {tuple(values[name].shape)}" for name in unused[:SHOWN]] + ["…"] * (len(unused) > SHOWN)
    instead = f"; it has instead: {', '.join(shown)}" if unused else "; it has nothing else"
    hint = hints.pop() if len(hints) == 1 else ""
    return (
        f"model file {filename!r} lacks {len(missing)} of {len(wanted)} parameters: {', '.join(missing)}{instead}{hint}"
    )


def _check_finite(params: Params, found: Params, filename: str, log: Log, *, path: str, must_be_finite: bool) -> None:
    """ConfigError (or a warning) if a value is NaN or infinite, unless the parameter is made so by the model."""
    bad = nonfinite(found)
    bad = [name for name in bad if name not in infinite_constants({name: params[name]})]
    if not bad:
        return
    text = f"model file {filename!r}: {described(found, bad)}"
    if must_be_finite:
        raise ConfigError(path, f"{text}; use the model of an earlier epoch")
    log.v1(f"WARNING: {path}: {text}")
