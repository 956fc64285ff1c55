"""Task `export`: a trained network for other runtimes, as `torch.export` programs, ONNX models, and a JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, BinaryIO, TypeAlias, cast

import torch
from torch.export import ExportedProgram

from returnn_lite.config import Config, export_runs
from returnn_lite.engine import data as engine_data
from returnn_lite.engine.setup import load_network
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.export.net_part import net_part
from returnn_lite.export.onnx_file import Session, check_packages, onnx_model
from returnn_lite.export.part import Found, Part
from returnn_lite.export.ports import Port
from returnn_lite.export.program import Arrays, Runner, file_of
from returnn_lite.export.step_parts import loop_parts
from returnn_lite.export.words import words
from returnn_lite.files import write_atomically
from returnn_lite.log import Log
from returnn_lite.network.network import Network
from returnn_lite.to_torch.batches import Net
from returnn_lite.to_torch.real_data import open_data, real_batches

Maker: TypeAlias = Callable[[ExportedProgram, Sequence[Port], Sequence[Port]], bytes]
Opener: TypeAlias = Callable[[bytes], Callable[[Arrays], Arrays]]
# In this order, since the second one changes the program.
FORMATS: dict[str, tuple[Maker, Opener]] = {"onnx": (onnx_model, Session), "pt2": (file_of, Runner)}


def export_task(config: Config, log: Log) -> None:
    """Writes `export_file` (default "net") + ".pt2", ".onnx" (those of `export_formats`) and ".json".

    With `export_loop`, the start and a step of this decoder are written ("net_start.pt2", "net_step.pt2"). Else the
    output is that of `forward_output_layer` (default "output"). The programs take batch-first tensors and lengths
    by data key, of any number of sequences and frames, and give "output", batch first, and its "lengths". They must
    agree within 1e-5 with the network on a batch of the config's data and on others before anything is written.
    ConfigError for a network that cannot be exported.
    """
    base, formats = config.value("export_file", "net"), chosen_formats(config)
    config.update({"device": "cpu", "task": export_runs(config)})
    dataset, missing = open_data(config, log)
    engine_data.complete_extern_data(config, [dataset])
    loop = config.value("export_loop", "")
    layer = loop or config.value("forward_output_layer", "output")
    loaded = load_network(config, log, task="export", search=bool(loop), eval=False, extra_layers=(layer,))
    net = cast(Net, loaded.net)
    if loop and not isinstance(net, Network):
        raise ConfigError(
            "export_loop", "only networks of layers have decoders that are exported; this is a torch model"
        )
    with torch.no_grad():
        real = next(iter(real_batches(config, net, dataset)), None)
        parts = loop_parts(cast(Network, net), layer, real) if loop else [net_part(net, layer, real)]
        about = {
            "config": os.path.basename(config.files[0]) if config.files else "",
            "epoch": loaded.epoch,
            "layer": layer,
            **words(net, layer, number_of_classes(parts[-1].outputs[0]), dataset),
        }
        found = write(base, formats, parts, about)
    on = f"on {dataset.name}" if dataset is not None else f"on random numbers ({missing})"
    names = ", ".join(file_names(base, formats, parts))
    log.v1(f"written: {names}; checked {on}, largest difference {found.gap:.1e}")
    if found.min_frames > 1:
        log.v1(f"note: sequences must have {found.min_frames} frames at least, which nothing checks")


def number_of_classes(port: Port) -> int:
    """How many classes labels or the last axis have."""
    size = port.classes or (port.axes[-1] if port.axes else 0)
    return size if isinstance(size, int) else 0


def chosen_formats(config: Config) -> tuple[str, ...]:
    """`export_formats`. ConfigError for others, and for packages that are missing."""
    given = config.typed_value("export_formats", tuple(FORMATS))
    names = tuple(given.replace(",", " ").split()) if isinstance(given, str) else tuple(given)
    for name in names:
        if name not in FORMATS:
            hint = did_you_mean(str(name), FORMATS)
            raise ConfigError("export_formats", f"must be of {tuple(FORMATS)}, but {name!r} is not{hint}")
    if not names:
        raise ConfigError("export_formats", f"must name one of {tuple(FORMATS)} at least, but is empty")
    if "onnx" in names:
        check_packages()
    return names


# --- files ------------------------------------------------------------------------------------------------------------


def write(base: str, formats: Sequence[str], parts: Sequence[Part], about: dict[str, Any]) -> Found:
    """Makes, checks and then writes all files."""
    files: dict[str, bytes] = {}
    found, programs = Found(), []
    for part in parts:
        program, of_part = part.program(), Found()
        for kind, (made, runner) in FORMATS.items():
            if kind in formats:
                content = files[f"{base}{part.name}.{kind}"] = made(program, part.inputs, part.outputs)
                of_part.add(part.check(runner(content), kind))
        names = {kind: os.path.basename(f"{base}{part.name}.{kind}") for kind in formats}
        ports = {"inputs": [p.as_dict() for p in part.inputs], "outputs": [p.as_dict() for p in part.outputs]}
        name = part.name.strip("_") or "net"
        programs.append({"name": name, **names, "min_frames": of_part.min_frames, **ports})
        found.add(of_part)
    text = json.dumps({**about, "programs": programs}, indent=1, ensure_ascii=False)
    files[f"{base}.json"] = f"{text}\n".encode()
    for name, content in files.items():
        write_atomically(name, partial(_put, content))
    return found


def _put(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def file_names(base: str, formats: Sequence[str], parts: Sequence[Part]) -> list[str]:
    """What is written."""
    return [*(f"{base}{part.name}.{kind}" for part in parts for kind in formats), f"{base}.json"]
