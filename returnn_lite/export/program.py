"""Plain torch modules as exported programs with symbolic sizes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.export import ExportedProgram

from returnn_lite.export.portable import Portable, with_torch_calls
from returnn_lite.export.ports import Port

Arrays = dict[str, torch.Tensor]


def exported(module: torch.nn.Module, inputs: Sequence[Port], example: Arrays) -> ExportedProgram:
    """The program of a module, traced with an example. Raises what torch raises if it cannot export it."""
    any_size = torch.export.Dim.AUTO
    shapes = {p.name: {i: any_size for i, axis in enumerate(p.axes) if isinstance(axis, str)} for p in inputs}
    hook = module.register_forward_pre_hook(partial(_equal_axes, inputs), with_kwargs=True)
    try:
        with quiet(), torch.no_grad(), Portable(), sizes_of_one_as_any():
            made = torch.export.export(module, (), example, dynamic_shapes=shapes, strict=False)
    finally:
        hook.remove()
    return _without_notes(made)


def _equal_axes(inputs: Sequence[Port], module: torch.nn.Module, args: tuple[Any, ...], given: Arrays) -> None:
    """Says that axes of one name have one size."""
    first: dict[str, int] = {}
    for port in inputs:
        for axis, size in zip(port.axes, given[port.name].shape, strict=True):
            if isinstance(axis, str):
                torch._check(size == first.setdefault(axis, size))


@contextlib.contextmanager
def sizes_of_one_as_any() -> Iterator[None]:
    """While it is entered, torch.export takes a size of 0 or 1 for a size like any other."""
    config: Any = torch.fx.experimental._config
    if not hasattr(config, "backed_size_oblivious"):  # in older versions of torch
        yield
        return
    with config.patch(backed_size_oblivious=True):
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """While it is entered, neither warnings of torch nor its log are shown: an error says all that counts."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class Runner:
    """The program of a file."""

    def __init__(self, file: bytes) -> None:
        self.module = torch.export.load(io.BytesIO(file)).module()

    def __call__(self, inputs: Arrays) -> Arrays:
        """The outputs by name."""
        with torch.no_grad():
            found: Mapping[str, torch.Tensor] = self.module(**inputs)
        return dict(found)


def _without_notes(program: ExportedProgram) -> ExportedProgram:
    """The program without what torch has noted of the sizes of its example: whoever makes it checks it with others."""
    if hasattr(program, "_guards_code"):
        program._guards_code = []
    for symbol, range_ in program.range_constraints.items():
        program.range_constraints[symbol] = type(range_)(0, range_.upper)
    return program


def file_of(program: ExportedProgram, inputs: Sequence[Port], outputs: Sequence[Port]) -> bytes:
    """The program as a file, for any computer that has torch; it has the names of what goes in and comes out."""
    with_torch_calls(program.graph)
    program.validate()
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def reason(exc: BaseException) -> str:
    """The first line of an error that says something."""
    lines = [line.strip(" -") for line in str(exc).splitlines() if line.strip()]
    said = [line for line in lines if "For more information" not in line]
    return (said or lines or [type(exc).__name__])[0]
