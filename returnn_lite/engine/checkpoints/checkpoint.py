"""Checkpoint files: `<model>.NNN.pt` (parameters), `<model>.NNN.opt.pt` (the rest of what resuming needs), and
`<model>.NNN.avg.pt` (averaged parameters, with `weight_averaging`).

Each file is written to a temporary name in the same folder, synced to disk and renamed: it is whole, or not there.
"""

import glob
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy
import torch

from returnn_lite.config import Config
from returnn_lite.engine.checkpoints.find import existing_models, model_file, strip_suffix
from returnn_lite.engine.checkpoints.formats import FORMATS, format_of
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.files import TEMPORARY, remove_if_there, write_atomically

AVERAGED = ".avg.pt"
KEPT_OPTIMIZER_STATES = 2
OWN_FORMAT, ALL_FORMATS = "pt", "both"


def remove_stale_files(model: str | None) -> None:
    """Removes the temporary files which a killed run of the same `model` left."""
    for path in glob.glob(f"{glob.escape(model)}.*{TEMPORARY}") if model else ():
        remove_if_there(path)


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
    info: Mapping[str, Any],
    suffix: str = ".pt",
    formats: Iterable[str] = (OWN_FORMAT,),
) -> None:
    """Writes `<base>.pt`: {"model": {name: tensor}, "epoch", "step", …}; "global_step" is in "model" as well.

    formats: further or other ones to write, as from `checkpoint_formats`.
    """
    model = {name: param.detach().cpu() for name, param in sorted(params.items())}
    model["global_step"] = torch.tensor(info["step"], dtype=torch.int64)
    for name in formats:
        if name == OWN_FORMAT:
            content = {"model": model, **info}
            write_atomically(base + suffix, lambda file, content=content: torch.save(content, file))  # type: ignore[misc]
        else:
            FORMATS[name].write(base, as_arrays(model))


def as_arrays(model: Mapping[str, torch.Tensor]) -> dict[str, numpy.ndarray]:
    """The tensors (on the CPU) as arrays; bfloat16, which numpy does not have, as float32."""
    return {k: (v.float() if v.dtype == torch.bfloat16 else v).numpy() for k, v in model.items()}


def save_checkpoint(
    base: str,
    params: Mapping[str, torch.Tensor],
    *,
    info: Mapping[str, Any],
    resume: Mapping[str, Any],
    averaged: Mapping[str, torch.Tensor] | None = None,
    formats: Iterable[str] = (OWN_FORMAT,),
) -> None:
    """Writes `<base>.opt.pt` (`resume` and `info`), `<base>.avg.pt` if there are averages, and last the model: where it
    is whole, its state is, too."""
    write_atomically(base + ".opt.pt", lambda file: torch.save({**resume, **info}, file))
    if averaged is not None:
        save_model(base, averaged, info=info, suffix=AVERAGED)
    save_model(base, params, info=info, formats=formats)


def load_resume_state(base: str) -> dict[str, Any] | None:
    """The content of `<base>.opt.pt`; None beside a model of another program, which has no such file."""
    if not os.path.isfile(base + ".opt.pt") and not os.path.isfile(base + ".pt"):
        return None
    state: dict[str, Any] = _torch_load(base + ".opt.pt")
    return state


def drop_old_resume_states(model: str) -> None:
    """Removes all optimizer states but those of the last epochs."""
    resumable = list(existing_models(model, 0, resumable=True).values())
    for base in resumable[:-KEPT_OPTIMIZER_STATES]:
        if os.path.isfile(base + ".opt.pt"):
            os.remove(base + ".opt.pt")


def read_model(name: str) -> dict[str, torch.Tensor]:
    """{parameter name: tensor on the CPU} of a model file: `.pt`, an `.npz` of named arrays, or a registered format.

    name: with or without suffix.  Raises ConfigError if there is no such file or it is of another kind.
    """
    path = model_file(name)
    if path is None:
        raise ConfigError("load", f"`load` must name a model file, but {name!r} does not exist")
    form = format_of(path)
    if form is not None:
        return as_tensors(form.read(strip_suffix(path)))
    if path.endswith(".npz"):
        with numpy.load(path, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(numpy.asarray(arrays[key])) for key in arrays.files}
    content = _torch_load(path)
    model = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(model, dict) or not all(isinstance(value, torch.Tensor) for value in model.values()):
        raise ConfigError("load", f"{path!r} must hold named tensors, but is of another kind")
    if "global_step" not in model and isinstance(content.get("step"), int):  # files of other programs
        model = {**model, "global_step": torch.tensor(content["step"])}
    return model


def as_tensors(arrays: Mapping[str, numpy.ndarray]) -> dict[str, torch.Tensor]:
    """The arrays as tensors; without strings, which no parameter is made of."""
    return {name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype.kind not in "OSU"}


def _torch_load(path: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError("load", f"file {path!r} does not exist") from None
    except Exception as exc:  # torch raises many kinds for damaged and foreign files
        reason = "it is empty" if os.path.getsize(path) == 0 else str(exc).split(". ")[0].split("\n")[0]
        raise ConfigError("load", f"{path!r} cannot be read as a checkpoint: {reason}") from exc
