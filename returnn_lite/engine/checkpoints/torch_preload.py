"""`preload_from_files` of models written in torch: the file's names get a prefix, and are then those of the model."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from returnn_lite.engine.checkpoints.checkpoint import read_model
from returnn_lite.engine.checkpoints.load import Params, copy_values
from returnn_lite.engine.checkpoints.preload import ALWAYS, KEY, FileReader, Preload, preload_entries
from returnn_lite.engine.models.torch_model import call
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log


@dataclass
class Preloaded:
    """loaded: the parameters that have their values; may_lack: those that may stay as initialised; lacking: those that
    must come from elsewhere, and the entry (path in the config) that lacks them."""

    loaded: set[str] = field(default_factory=set)
    may_lack: set[str] = field(default_factory=set)
    lacking: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """ConfigError if something is still missing, where no other file follows."""
        for name, path in self.lacking.items():
            if name not in self.loaded | self.may_lack:
                missing = [other for other in self.lacking if other not in self.loaded | self.may_lack]
                text = f"the file lacks {len(missing)} parameters: {', '.join(missing)}"
                raise ConfigError(path, f'{text}; with "ignore_missing": True they stay as initialised')


def preload_torch(params: Params, value: object, log: Log, *, training: bool, fresh: bool) -> Preloaded:
    """Loads what the option names into a torch module; of several entries for a parameter, the first by name counts.

    training, fresh: as of `preload`. Raises ConfigError.
    """
    result = Preloaded()
    entries = [entry for entry in preload_entries(value, of_torch=True) if entry.init_for_train != ALWAYS]
    for entry in reversed([entry for entry in entries if entry.acts(training=training, fresh=fresh)]):
        load_entry(params, entry, result, log)
    return result


def load_always(model: torch.nn.Module, params: Params, value: object, log: Log) -> None:
    """Loads the entries with `init_for_train` "always"; their parameters become buffers that no checkpoint has."""
    result = Preloaded()
    for entry in reversed([entry for entry in preload_entries(value, of_torch=True) if entry.init_for_train == ALWAYS]):
        load_entry(params, entry, result, log)
    result.check()
    if result.loaded:
        fix({id(params[name]) for name in result.loaded}, model)
        log.v3(f"{KEY}: neither trained nor saved: {', '.join(sorted(result.loaded))}")


def fix(tensors: set[int], model: torch.nn.Module) -> None:
    """Makes these parameters and buffers (by id) buffers that are not part of the state."""
    for module in model.modules():
        for name, param in list(module._parameters.items()):
            if id(param) in tensors and param is not None:
                del module._parameters[name]
                module.register_buffer(name, param.detach(), persistent=False)
        module._non_persistent_buffers_set.update(
            name for name, buffer in module._buffers.items() if id(buffer) in tensors
        )


def load_entry(params: Params, entry: Preload, result: Preloaded, log: Log) -> None:
    """Loads one entry, over what later ones gave."""
    own = [name for name in params if name.startswith(entry.prefix)]
    if entry.pattern is not None:
        own = [name for name in own if fnmatch.fnmatchcase(name, entry.pattern)]
    if not own:
        what = f"has the prefix {entry.prefix!r}" if entry.pattern is None else f"fits the pattern {entry.pattern!r}"
        hint = did_you_mean(entry.prefix, sorted({name[: len(entry.prefix)] for name in params}))
        text = f"no parameter of the model {what}{hint}; parameters: {', '.join(params)}"
        raise ConfigError(entry.path, text)
    if entry.filename is None:
        result.may_lack.update(own)
        return
    log.v3(f"Pre-load weights for key {entry.path!r} from {entry.filename!r} (prefix {entry.prefix!r})")
    state = file_state(entry, log)
    values = {name: state[name] for name in params if name in state}
    values |= made_values(params, values, state, entry)
    if not values:
        file = ", ".join(list(state)[:10]) or "nothing"
        text = (
            f"no parameter of the model is in {entry.filename!r}, whose names with prefix {entry.prefix!r} are {file}"
        )
        raise ConfigError(entry.path, f"{text}; parameters: {', '.join(params)}")
    wanted = {name: name for name in values}
    copy_values(params, values, wanted, entry.filename, log, path=entry.path, ignore_missing=True)
    result.loaded |= set(values)
    missing = [name for name in own if name not in values]
    if missing:
        log.v4(f"Missing keys: {', '.join(missing)}")
    if entry.ignore_missing:
        result.may_lack.update(missing)
    else:
        result.lacking.update(dict.fromkeys(missing, entry.path))


def file_state(entry: Preload, log: Log) -> dict[str, torch.Tensor]:
    """The file's values by the model's names: prefix, then what is left out, then what is mapped."""
    filename = entry.filename or ""
    file = read_model(filename, f'{entry.path}["filename"]', key=entry.checkpoint_key)
    state = {entry.prefix + name: value for name, value in file.items() if name != "global_step"}
    for name in [name for name in state if is_ignored(name, entry.ignore_params, entry.ignore_params_prefixes)]:
        log.v3(f"Ignoring variable {name}")
        del state[name]
    mapped: dict[str, torch.Tensor] = {}
    for name, source in entry.var_name_mapping.items():
        if source in state:
            mapped[name] = state[source]
        elif not entry.ignore_missing and not entry.custom_missing_load_func:
            known = ", ".join(list(state)[:10])
            text = f"maps {name!r} to {source!r}, which {filename!r} lacks{did_you_mean(source, state)}; it has {known}"
            raise entry.wrong("var_name_mapping", f"{text} (names with prefix)")
    rest = {name: value for name, value in state.items() if name not in entry.var_name_mapping.values()}
    return {**rest, **mapped}


def is_ignored(name: str, names: Iterable[str], prefixes: Iterable[str]) -> bool:
    """Whether a name of the file (with prefix) is to be left out."""
    return name in names or name.startswith(tuple(prefixes))


def made_values(
    params: Params, values: Params, state: Mapping[str, torch.Tensor], entry: Preload
) -> dict[str, torch.Tensor]:
    """What the entry's function makes of the file for parameters that it lacks."""
    function = entry.custom_missing_load_func
    if function is None:
        return {}
    made: dict[str, torch.Tensor] = {}
    for name in (name for name in params if name not in values):
        shape = params[name].shape
        offered: dict[str, Any] = {"name": name, "shape": shape, "preload_model_state": dict(state)}
        found = call(function, f'{entry.path}["custom_missing_load_func"]', offered, {"reader": FileReader(state)})
        if found is None:
            continue
        made[name] = torch.as_tensor(found)
        if made[name].shape != shape:
            text = f"must return a tensor of shape {tuple(shape)} for {name}, but returned {tuple(made[name].shape)}"
            raise entry.wrong("custom_missing_load_func", text)
    return made
