"""Parameters from model files into a network: the main checkpoint and `preload_from_files`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch

from returnn_lite.engine.checkpoints.checkpoint import read_model
from returnn_lite.engine.checkpoints.conversion import convert
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log

Params = Mapping[str, torch.Tensor]


def load_params(
    params: Params,
    filename: str,
    log: Log,
    *,
    skip: Iterable[str] = (),
    optional: Iterable[str] = (),
    ignore_missing: bool = False,
) -> int:
    """Copies the file's values into all parameters but those in `skip`; further entries of the file are ignored, and
    so are parameters in `optional` that the file lacks.

    Returns the file's global step (0 if it has none).  Raises ConfigError naming what is missing or has another shape.
    """
    file = read_model(filename)
    wanted = {name: name for name in params if name not in set(skip)}
    values = with_conversions({name: tuple(param.shape) for name, param in params.items()}, file, log)
    wanted = {name: key for name, key in wanted.items() if key in values or name not in set(optional)}
    _copy(params, values, wanted, filename, log, path="load", ignore_missing=ignore_missing)
    return int(file["global_step"]) if "global_step" in file else 0


def stored_step(filename: str) -> int:
    """The global step that a model file was written at; 0 if it does not say."""
    return int(read_model(filename).get("global_step", 0))


def with_conversions(shapes: Mapping[str, tuple[int, ...]], values: Params, log: Log) -> Params:
    """The file's values, and those of `shapes` that it has only in another form (`engine/conversion.py`)."""
    found = convert(shapes, values)
    for name, origins in found.origins.items():
        log.v2(f"parameter {name} is made from {', '.join(origins)} of the file")
    for scope, remark in found.remarks.items():
        log.v2(f"note: {scope}: {remark}")
    return {**values, **found.values}


def _copy(
    params: Params,
    values: Params,
    wanted: Mapping[str, str],
    filename: str,
    log: Log,
    *,
    path: str,
    ignore_missing: bool,
) -> set[str]:
    """Copies `values[wanted[name]]` into `params[name]`; returns the names which were set."""
    missing = [f"{name} {tuple(params[name].shape)}" for name, key in wanted.items() if key not in values]
    if missing and not ignore_missing:
        hints = {did_you_mean(key, list(values)) for key in wanted.values() if key not in values} - {""}
        text = f"model file {filename!r} lacks {len(missing)} of {len(wanted)} parameters: {', '.join(missing)}"
        raise ConfigError(path, text + (hints.pop() if len(hints) == 1 else ""))
    found = {name: values[key] for name, key in wanted.items() if key in values}
    wrong = [
        f"{name} is {tuple(params[name].shape)}, in the file {tuple(value.shape)}"
        for name, value in found.items()
        if params[name].shape != value.shape
    ]
    if wrong:
        raise ConfigError(path, f"model file {filename!r} has parameters of other shapes: {'; '.join(wrong)}")
    if missing:
        log.v2(f"model file {filename!r} lacks parameters, which stay as initialised: {', '.join(missing)}")
    with torch.no_grad():
        for name, value in found.items():
            params[name].copy_(value)
    return set(found)


@dataclass(frozen=True)
class Preload:
    """One entry of `preload_from_files`."""

    filename: str
    prefix: str = ""
    init_for_train: bool = False
    ignore_missing: bool = False
    ignore_params: tuple[str, ...] = ()
    ignore_params_prefixes: tuple[str, ...] = ()
    var_name_mapping: Mapping[str, str] = field(default_factory=dict)
    custom_missing_load_func: Callable[..., Any] | None = None

    @classmethod
    def from_value(cls, name: str, value: object) -> "Preload":
        """Checks one entry; raises ConfigError for an unknown or missing option."""
        path = f'preload_from_files["{name}"]'
        if not isinstance(value, dict) or "filename" not in value:
            raise ConfigError(path, f'the entry must be a dict with "filename", but is {value!r} instead')
        for option in value:
            if option not in cls.__dataclass_fields__:
                hint = did_you_mean(option, list(cls.__dataclass_fields__))
                raise ConfigError(path, f'there is no option "{option}"{hint}')
        return cls(**value)

    def selected(self, params: Params, done: set[str]) -> dict[str, str]:
        """{parameter name: its name in the file} of what this entry is to load."""
        prefixes = tuple(self.ignore_params_prefixes)
        return {
            name: name.replace(self.prefix, "") if self.prefix else name
            for name in params
            if self.prefix in name
            and name not in done
            and name not in self.ignore_params
            and not (prefixes and name.startswith(prefixes))
        }


def preload(
    params: Params, entries: object, log: Log, *, training: bool, fresh: bool, done: Iterable[str] = ()
) -> set[str]:
    """Loads what `preload_from_files` names; returns the parameters set, which later loaders leave alone.

    training, fresh: entries with `init_for_train` act only at a fresh start of a training, the others in other tasks.
    done: the parameters that an earlier loader set.
    """
    done = set(done)
    if not entries:
        return done
    if not isinstance(entries, dict):
        raise ConfigError("preload_from_files", f"`preload_from_files` must be a dict, but is {entries!r} instead")
    for name in sorted(entries):
        entry = Preload.from_value(name, entries[name])
        if (training and fresh) if entry.init_for_train else not training:
            done |= preload_entry(params, f'preload_from_files["{name}"]', entry, done, log)
    return done


def preload_entry(params: Params, path: str, entry: Preload, done: set[str], log: Log) -> set[str]:
    """Loads what one entry (at `path` of the config) selects, without `done`; returns the names of what was set."""
    wanted = entry.selected(params, done)
    if not wanted and not entry.selected(params, set()):
        text = f'no parameter of the network contains the prefix "{entry.prefix}"'
        raise ConfigError(path, f"{text}; parameters: {', '.join(sorted(params))}")
    file = read_model(entry.filename)
    values = dict(with_conversions({key: tuple(params[param].shape) for param, key in wanted.items()}, file, log))
    for param, key in wanted.items():
        if key not in file:
            values.update(_missing_value(param, key, tuple(params[param].shape), file, values, entry))
    log.v3(f"pre-load {len(wanted)} parameters from {entry.filename!r} (prefix {entry.prefix!r})")
    loaded = _copy(params, values, wanted, entry.filename, log, path=path, ignore_missing=entry.ignore_missing)
    unused = sorted(set(values) - {wanted[p] for p in loaded} - {"global_step"})
    log.v4(
        f"  loaded: {', '.join(sorted(loaded))}; missing: {', '.join(sorted(set(wanted) - loaded)) or '-'}; "
        f"unused: {', '.join(unused) or '-'}"
    )
    return loaded


def _missing_value(
    param: str, key: str, shape: tuple[int, ...], file: Params, values: Params, entry: Preload
) -> dict[str, torch.Tensor]:
    """The value of a parameter that the file lacks: under its mapped name, or, if it was not found in another form
    (`values`), by the user's function."""
    mapped = entry.var_name_mapping.get(key, entry.var_name_mapping.get(param))
    if mapped in file:
        return {key: file[mapped]}  # type: ignore[index]
    if entry.custom_missing_load_func and key not in values:
        made = entry.custom_missing_load_func(name=param, shape=shape, reader=FileReader(file))
        if made is not None:
            return {key: torch.as_tensor(numpy.asarray(made))}
    return {}


class FileReader:
    """What a `custom_missing_load_func` sees of the file."""

    def __init__(self, values: Params) -> None:
        self._values = values

    def has_tensor(self, name: str) -> bool:
        """Whether the file has this entry."""
        return name in self._values

    def get_tensor(self, name: str) -> numpy.ndarray:
        """The entry's array; raises KeyError."""
        array: numpy.ndarray = self._values[name].numpy()
        return array

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """{name: shape} of the whole file."""
        return {name: list(value.shape) for name, value in self._values.items()}
