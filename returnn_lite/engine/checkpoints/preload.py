"""`preload_from_files`: parameters from files of other models, before or beside the main checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch

from returnn_lite.engine.checkpoints.checkpoint import read_model
from returnn_lite.engine.checkpoints.load import Params, copy_values, with_conversions
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log

KEY = "preload_from_files"
ALWAYS = "always"
# Of models written in torch only.
TORCH_ONLY = ("pattern",)


@dataclass(frozen=True)
class Preload:
    """One entry. `path`: of it in the config."""

    filename: str | None
    prefix: str = ""
    pattern: str | None = None
    init_for_train: bool | str = False
    ignore_missing: bool = False
    ignore_params: Sequence[str] = ()
    ignore_params_prefixes: Sequence[str] = ()
    var_name_mapping: Mapping[str, str] = field(default_factory=dict)
    custom_missing_load_func: Callable[..., Any] | None = None
    checkpoint_key: str | None = "model"
    path: str = KEY

    @classmethod
    def from_value(cls, name: str, value: object, *, of_torch: bool) -> Preload:
        """Checks one entry; raises ConfigError for an unknown, missing or wrong option."""
        path = f'{KEY}["{name}"]'
        if not isinstance(value, Mapping) or "filename" not in value:
            raise ConfigError(path, f'the entry must be a dict with "filename", but is {value!r} instead')
        known = [f.name for f in fields(cls) if f.name != "path" and (of_torch or f.name not in TORCH_ONLY)]
        for option in value:
            if option not in known:
                raise ConfigError(path, f'unknown option "{option}"{did_you_mean(option, known)}')
        made = cls(**value, path=path)
        made._check(of_torch)
        return made

    def _check(self, of_torch: bool) -> None:
        wanted = {
            "filename": ("a file name" + " or None" * of_torch, (str, type(None)) if of_torch else (str,)),
            "prefix": ("text", (str,)),
            "pattern": ("text", (str, type(None))),
            "ignore_params": ("a list of names", (list, tuple, set, frozenset)),
            "ignore_params_prefixes": ("a list of beginnings of names", (list, tuple, set, frozenset)),
            "var_name_mapping": ("a dict {name in the model: name in the file}", (Mapping,)),
            "checkpoint_key": ("text or None", (str, type(None))),
        }
        for option, (what, types) in wanted.items():
            value = getattr(self, option)
            if not isinstance(value, types):
                raise self.wrong(option, f"must be {what}, but is {value!r} instead")
        choices = (True, False, ALWAYS) if of_torch else (True, False)
        if not any(self.init_for_train is choice or self.init_for_train == choice for choice in choices):
            names = ", ".join(map(repr, choices))
            raise self.wrong("init_for_train", f"must be one of {names}, but is {self.init_for_train!r} instead")
        if self.custom_missing_load_func is not None and not callable(self.custom_missing_load_func):
            text = f"must be a function, but is {self.custom_missing_load_func!r} instead"
            raise self.wrong("custom_missing_load_func", text)

    def wrong(self, option: str, text: str) -> ConfigError:
        """The error about an option."""
        return ConfigError(f'{self.path}["{option}"]', f"`{option}` {text}")

    def acts(self, *, training: bool, fresh: bool) -> bool:
        """Whether the entry is for this task: with `init_for_train` at a fresh start of a training, else others."""
        return (training and fresh) if self.init_for_train else not training

    def selected(self, params: Params, done: set[str]) -> dict[str, str]:
        """{parameter name: its name in the file} of what this entry is to load into a net of layers."""
        prefixes = tuple(self.ignore_params_prefixes)
        return {
            name: name.replace(self.prefix, "") if self.prefix else name
            for name in params
            if self.prefix in name
            and name not in done
            and name not in self.ignore_params
            and not (prefixes and name.startswith(prefixes))
        }


def preload_entries(value: object, *, of_torch: bool) -> list[Preload]:
    """All entries, sorted by name. ConfigError if one is wrong."""
    if not value:
        return []
    if not isinstance(value, Mapping):
        raise ConfigError(KEY, f"`{KEY}` must be a dict, but is {value!r} instead")
    return [Preload.from_value(name, value[name], of_torch=of_torch) for name in sorted(value)]


def preload(
    params: Params, value: object, log: Log, *, training: bool, fresh: bool, done: Iterable[str] = ()
) -> set[str]:
    """Loads what the option names into a net of layers; returns the parameters set, which later loaders leave alone.

    training, fresh: entries with `init_for_train` act only at a fresh start of a training, the others in other tasks.
    done: the parameters that an earlier loader set.
    """
    done = set(done)
    for entry in preload_entries(value, of_torch=False):
        if entry.acts(training=training, fresh=fresh):
            done |= preload_entry(params, entry.path, entry, done, log)
    return done


def preload_entry(params: Params, path: str, entry: Preload, done: set[str], log: Log) -> set[str]:
    """Loads what one entry (at `path` of the config) selects, without `done`; returns the names of what was set."""
    wanted = entry.selected(params, done)
    if not wanted and not entry.selected(params, set()):
        text = f'no parameter of the network contains the prefix "{entry.prefix}"'
        raise ConfigError(path, f"{text}; parameters: {', '.join(sorted(params))}")
    filename = entry.filename or ""
    file = read_model(filename, f'{path}["filename"]', key=entry.checkpoint_key)
    values = dict(with_conversions({key: tuple(params[param].shape) for param, key in wanted.items()}, file, log))
    for param, key in wanted.items():
        if key not in file:
            values.update(_missing_value(param, key, tuple(params[param].shape), file, values, entry))
    log.v3(f"pre-load {len(wanted)} parameters from {filename!r} (prefix {entry.prefix!r})")
    loaded = copy_values(params, values, wanted, filename, log, path=path, ignore_missing=entry.ignore_missing)
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
            return {key: torch.as_tensor(np.asarray(made))}
    return {}


class FileReader:
    """What a `custom_missing_load_func` sees of the file."""

    def __init__(self, values: Params) -> None:
        self._values = values

    def has_tensor(self, name: str) -> bool:
        """Whether the file has this entry."""
        return name in self._values

    def get_tensor(self, name: str) -> np.ndarray:
        """The entry's array; raises KeyError."""
        value = self._values[name]
        array: np.ndarray = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        return array

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """{name: shape} of the whole file."""
        return {name: list(value.shape) for name, value in self._values.items()}
