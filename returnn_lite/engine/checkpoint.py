"""Checkpoint files: `<model>.NNN.pt` (parameters), `<model>.NNN.opt.pt` (the rest of what resuming needs), and
`<model>.NNN.avg.pt` (averaged parameters, with `weight_averaging`).

Each file is written to a temporary name in the same folder, synced to disk and renamed: it is whole, or not there.
"""

import glob
import os
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy
import torch

from returnn_lite.engine.find import existing_models, model_file
from returnn_lite.errors import ConfigError

TEMPORARY = ".tmp"
AVERAGED = ".avg.pt"
KEPT_OPTIMIZER_STATES = 2


def write_atomically(path: str, write: Callable[[BinaryIO], None]) -> None:
    """Calls `write(file)` on a temporary file beside `path`, then renames it to `path`."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = path + TEMPORARY
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def remove_stale_files(model: str | None) -> None:
    """Removes the temporary files which a killed run of the same `model` left."""
    for path in glob.glob(f"{glob.escape(model)}.*{TEMPORARY}") if model else ():
        os.remove(path)


def save_model(base: str, params: Mapping[str, torch.Tensor], *, info: Mapping[str, Any], suffix: str = ".pt") -> None:
    """Writes `<base>.pt`: {"model": {name: tensor}, "epoch", "step", …}; "global_step" is in "model" as well."""
    model = {name: param.detach().cpu() for name, param in sorted(params.items())}
    model["global_step"] = torch.tensor(info["step"], dtype=torch.int64)
    content = {"model": model, **info}
    write_atomically(base + suffix, lambda file: torch.save(content, file))


def save_checkpoint(
    base: str,
    params: Mapping[str, torch.Tensor],
    *,
    info: Mapping[str, Any],
    resume: Mapping[str, Any],
    averaged: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Writes `<base>.opt.pt` (`resume` and `info`), `<base>.avg.pt` if there are averages, and last `<base>.pt`: where
    the model is whole, its state is, too."""
    write_atomically(base + ".opt.pt", lambda file: torch.save({**resume, **info}, file))
    if averaged is not None:
        save_model(base, averaged, info=info, suffix=AVERAGED)
    save_model(base, params, info=info)


def load_resume_state(base: str) -> dict[str, Any]:
    """The content of `<base>.opt.pt`."""
    state: dict[str, Any] = _torch_load(base + ".opt.pt")
    return state


def drop_old_resume_states(model: str) -> None:
    """Removes all optimizer states but those of the last epochs."""
    resumable = list(existing_models(model, 0, resumable=True).values())
    for base in resumable[:-KEPT_OPTIMIZER_STATES]:
        os.remove(base + ".opt.pt")


def read_model(name: str) -> dict[str, torch.Tensor]:
    """{parameter name: tensor on the CPU} of a model file: `.pt`, or an `.npz` of named arrays.

    name: with or without suffix.  Raises ConfigError if there is no such file or it is of another kind.
    """
    path = model_file(name)
    if path is None:
        foreign = os.path.isfile(name + ".index")
        what = "is a TensorFlow checkpoint, which cannot be read yet" if foreign else "does not exist"
        raise ConfigError("load", f"`load` must name a model file, but {name!r} {what}")
    if path.endswith(".npz"):
        with numpy.load(path, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(numpy.asarray(arrays[key])) for key in arrays.files}
    content = _torch_load(path)
    model = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(model, dict) or not all(isinstance(value, torch.Tensor) for value in model.values()):
        raise ConfigError("load", f"{path!r} must hold named tensors, but is of another kind")
    return model


def _torch_load(path: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError("load", f"file {path!r} does not exist") from None
    except Exception as exc:  # torch raises many kinds for damaged and foreign files
        raise ConfigError("load", f"{path!r} cannot be read as a checkpoint: {str(exc).splitlines()[0]}") from exc
