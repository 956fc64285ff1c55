"""Checkpoint files: `<model>.NNN.pt` (parameters), `<model>.NNN.opt.pt` (the rest of what resuming needs), and
`<model>.NNN.avg.pt` (averaged parameters, with `weight_averaging`).

Each file is written to a temporary name in the same folder, synced to disk and renamed: it is whole, or not there.
"""

import contextlib
import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.engine.checkpoints.find import existing_models, model_file, nearby, strip_suffix
from returnn_lite.engine.checkpoints.foreign_state import is_foreign, translated
from returnn_lite.engine.checkpoints.formats import FORMATS, format_of
from returnn_lite.engine.checkpoints.safetensors_file import SUFFIX, read_safetensors
from returnn_lite.engine.checkpoints.torch_file import read_entries, read_torch_file, write_torch_file
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.files import TEMPORARY, remove_if_there, write_atomically
from returnn_lite.optim.state import SavedState, State
from returnn_lite.schedule import lr_file

AVERAGED = ".avg.pt"
KEPT_OPTIMIZER_STATES = 2
OWN_FORMAT, ALL_FORMATS = "pt", "both"


def remove_stale_files(model: str | None, learning_rate_file: str | None = None) -> None:
    """Removes the temporary files which a killed run of the same `model` left."""
    if not model:
        return
    for path in glob.glob(f"{glob.escape(model)}.*{TEMPORARY}"):
        remove_if_there(path)
    if FORMATS:  # the list of checkpoints that other programs read
        remove_if_there(os.path.join(os.path.dirname(model), f"checkpoint{TEMPORARY}"))
    if learning_rate_file:
        remove_if_there(learning_rate_file + lr_file.TEMPORARY)


def checkpoint_formats(config: Config) -> tuple[str, ...]:
    """The formats to write, by `checkpoint_format`: "pt" (the default), another program's ("tf"), or "both"."""
    wanted = config.value("checkpoint_format", OWN_FORMAT) or OWN_FORMAT
    known = [OWN_FORMAT, *FORMATS]
    if wanted not in [*known, ALL_FORMATS]:
        names = ", ".join(f'"{name}"' for name in [*known, ALL_FORMATS])
        hint = did_you_mean(wanted, [*known, ALL_FORMATS])
        text = f"`checkpoint_format` must be one of {names}, but is {wanted!r} instead{hint}"
        raise ConfigError("checkpoint_format", text)
    return tuple(reversed(known)) if wanted == ALL_FORMATS else (wanted,)


def save_model(
    base: str,
    params: Mapping[str, torch.Tensor],
    *,
    info: SavedState,
    suffix: str = ".pt",
    formats: Iterable[str] = (OWN_FORMAT,),
    as_torch: bool = False,
) -> None:
    """Writes `<base>.pt`: {"model": {name: tensor}, "epoch", "step", …}; "global_step" is in "model" as well.

    formats: further or other ones to write, as from `checkpoint_formats`. `as_torch`: "model" is a module's state dict.
    """
    state = {name: param.detach().cpu() for name, param in params.items()}
    model = {**dict(sorted(state.items())), "global_step": torch.tensor(info["step"], dtype=torch.int64)}
    for name in formats:
        if name == OWN_FORMAT:
            content = {"model": state if as_torch else model, **info}
            write_atomically(base + suffix, lambda file, content=content: write_torch_file(content, file))  # type: ignore[misc]
        else:
            FORMATS[name].write(base, as_arrays(model))


def as_arrays(model: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The tensors (on the CPU) as arrays; bfloat16, which numpy does not have, as float32."""
    return {k: (v.float() if v.dtype == torch.bfloat16 else v).numpy() for k, v in model.items()}


def save_checkpoint(
    base: str,
    params: Mapping[str, torch.Tensor],
    *,
    info: SavedState,
    resume: SavedState,
    averaged: Mapping[str, torch.Tensor] | None = None,
    formats: Iterable[str] = (OWN_FORMAT,),
    as_torch: bool = False,
) -> None:
    """Writes `<base>.opt.pt` (`resume` and `info`), `<base>.avg.pt` if there are averages, and last the model: where it
    is whole, its state is, too."""
    save_resume_state(base, info=info, resume=resume)
    if averaged is not None:
        save_model(base, averaged, info=info, suffix=AVERAGED, as_torch=as_torch)
    save_model(base, params, info=info, formats=formats, as_torch=as_torch)


def save_resume_state(base: str, *, info: SavedState, resume: SavedState) -> None:
    """Writes `<base>.opt.pt`."""
    write_atomically(base + ".opt.pt", lambda file: write_torch_file({**resume, **info}, file))


WITHOUT_STATE = "without this file, `start_epoch` continues with a fresh optimizer"
RESUME_STATE = {"optimizer": dict, "learning_rates": str, "step": int}


def load_resume_state(base: str, step: int = 0) -> State | None:
    """The content of `<base>.opt.pt`, RETURNN's own included; None if there is none.

    step: of the model, 0: not known. Raises ConfigError if it is damaged, something else, or of another step.
    """
    path = base + ".opt.pt"
    if not os.path.isfile(path):
        return None
    state = read_torch_file(path)
    known = state if isinstance(state, dict) else {}
    if is_foreign(known):
        with fitting_state(base):
            known = translated(known)
    lacking = [key for key, kind in RESUME_STATE.items() if not isinstance(known.get(key), kind)]
    if not lacking and not isinstance(known["optimizer"].get("optimizers"), dict):
        lacking = ["optimizers"]
    if lacking:
        wanted, found = ", ".join(RESUME_STATE), ", ".join(map(str, known)) or type(state).__name__
        text = f"{path!r} must be the optimizer state ({wanted}) that a training saves, but has {found} instead"
        raise ConfigError("load", f"{text}; {WITHOUT_STATE}")
    if step and known["step"] != step:
        text = f"{path!r} is of step {known['step']}, but the model is of step {step}"
        raise ConfigError("load", f"{text}: they belong to different runs; {WITHOUT_STATE}")
    return known


@contextlib.contextmanager
def fitting_state(base: str) -> Iterator[None]:
    """Turns an error in taking over the optimizer state of a checkpoint into a ConfigError that names its file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as exc:
        reason = f"{type(exc).__name__}: {exc}".split("\n")[0]
        text = f"{base + '.opt.pt'!r} has a state that does not fit the optimizer ({reason})"
        raise ConfigError("load", f"{text}; {WITHOUT_STATE}") from exc


def drop_resume_state(base: str) -> None:
    """Removes the optimizer state of an epoch, if it is there."""
    if os.path.isfile(base + ".opt.pt"):
        os.remove(base + ".opt.pt")


def drop_old_resume_states(model: str) -> None:
    """Removes all optimizer states but those of the last epochs."""
    resumable = list(existing_models(model, 0, resumable=True).values())
    for base in resumable[:-KEPT_OPTIMIZER_STATES]:
        drop_resume_state(base)


def read_model(name: str, option: str = "load", *, key: str | None = "model") -> dict[str, torch.Tensor]:
    """{parameter name: tensor on the CPU} of a model file: `.pt`, an `.npz` of named arrays, `.safetensors`, or a
    registered format.

    name: with or without suffix; key: of the parameters in a `.pt` file, None: it has nothing else. A file that has
    no "model" is taken to be without one, too. Raises ConfigError (path: `option`) if there is no such file, or if it
    is damaged or of another kind.
    """
    path = model_file(name)
    if path is None:
        raise ConfigError(option, f"must name a model file, but {name!r} does not exist; {nearby(name)}")
    form = format_of(path)
    if form is not None:
        return as_tensors(form.read(strip_suffix(path)))
    if path.endswith(".npz"):
        return read_arrays(path, option)
    if path.endswith(SUFFIX):
        return read_safetensors(path, option)
    content = read_torch_file(path, option)
    model = _entry(content, key, path, option)
    if not isinstance(model, dict) or not all(isinstance(value, torch.Tensor) for value in model.values()):
        found = ", ".join(map(str, list(content)[:10])) if isinstance(content, dict) else type(content).__name__
        raise ConfigError(option, f"{path!r} must hold named tensors, but is of another kind: {found}")
    if "global_step" not in model and isinstance(content.get("step"), int):  # files of other programs
        model = {**model, "global_step": torch.tensor(content["step"])}
    return model


def read_step(name: str, missing: int = 0) -> int:
    """The global step that a model file was written at; `missing` if it does not say."""
    step = read_entry(name, "step")
    return int(read_model(name).get("global_step", missing)) if step is None else step


def read_entry(name: str, key: str) -> int | None:
    """A number beside the parameters of a `.pt` file; None if there is none."""
    path = model_file(name)
    content = read_entries(path) if path is not None and path.endswith(".pt") else None  # without reading all arrays
    number = content.get(key) if isinstance(content, dict) else None
    return number if isinstance(number, int) else None


def _entry(content: Any, key: str | None, path: str, option: str) -> Any:
    """The entry of a file, or all of it."""
    if key is None or not isinstance(content, dict) or key == "model" and key not in content:
        return content
    if key not in content:
        known = [str(name) for name in content]
        shown = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
        text = f"{path!r} has no entry {key!r}{did_you_mean(key, known)}; it has {shown}"
        raise ConfigError(option, text)
    return content[key]


def read_arrays(path: str, option: str = "load") -> dict[str, torch.Tensor]:
    """The named arrays of an `.npz` file. ConfigError if it is damaged or of another kind."""
    try:
        with open(path, "rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ConfigError(option, f"{path!r} must be an .npz file of named arrays, but holds a single array")
            return as_tensors({name: np.asarray(arrays[name]) for name in arrays.files})
    except ConfigError:
        raise
    except Exception as exc:  # zipfile, zlib and numpy raise many kinds
        reason = "it is empty" if os.path.getsize(path) == 0 else (str(exc) or type(exc).__name__).split("\n")[0]
        text = f"{path!r} cannot be read as an .npz file of named arrays, it is damaged or of another kind: {reason}"
        raise ConfigError(option, text) from exc


def as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The arrays as tensors; without strings, which no parameter is made of."""
    return {name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype.kind not in "OSU"}
