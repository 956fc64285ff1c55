"""Compares a written module with its network, on batches of other sizes than those that were recorded."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.network.network import Network
from returnn_lite.to_torch.batches import (
    CHECKED,
    Arrays,
    Kind,
    as_inputs,
    batch,
    kept_params,
    kind_of_data,
    results,
    seed,
)
from returnn_lite.to_torch.module import Module

TOLERANCE = 1e-5
FILE = "net.py"  # by which the code of modules is known
NOISY, SCALES = (3, 61), (0.5, 1.0, 2.0)  # a batch for searches that end elsewhere, by noise on the biases
TRIALS = 9  # with noise at most, if no search ends early


@dataclass(frozen=True)
class Example:
    """A batch to check on. `noise`: how much is added to the biases, `trial`: the number among those with noise."""

    name: str
    data: Arrays
    lengths: Arrays
    noise: float = 0.0
    trial: int = 0


@dataclass
class Found:
    """What a check has found: the largest difference, relative to the largest value, over `batches`.

    `ended_early`: whether searches have ended at several ticks; `tied`: whether random sequences were all of equal
    lengths, since the network takes no others.
    """

    gap: float = 0.0
    batches: int = 0
    ended_early: bool = False
    tied: bool = False


def check(net: Network, layer: str, module: Module, real: Sequence[tuple[Arrays, Arrays]] = ()) -> Found:
    """Runs the module and the network on a few batches; `real`: batches of data, data and lengths by key.

    With noise on their biases searches end at other ticks. Raises ConfigError, which names the first layer that
    differs, where the difference is above the tolerance, and if the module fails or changes itself.
    """
    net.context.keeps_batch = module.draws
    kind = kind_of_data(net, layer)
    found, ends = Found(tied=kind.tied), set[int]()  # lengths of hypotheses for one and the same batch
    for example in _examples(net, kind, module, real):
        if example.trial >= len(SCALES) and found.ended_early:
            break
        made = loaded_module(module)
        with torch.no_grad(), _noise(net, made, module, example):
            try:
                seed(net, len(example.name))
                wanted = results(net, layer, example.data, example.lengths)
            except (ConfigError, RuntimeError, IndexError):  # the network itself cannot do that
                continue
            if example.noise and not wanted["output"].numel():  # of hypotheses without labels there is no shape
                continue
            found.gap = max(found.gap, _gap(net, layer, module, made, example, wanted))
            _refuse_changes(layer, module, made, example)
            if module.searches and "lengths" in wanted:
                ends |= {int(n) for n in (wanted["lengths"] if example.noise else [])}
                found.ended_early = len(ends) > 1
            found.batches += 1
    if not found.batches:
        raise ConfigError(f"network[{layer!r}]", "cannot be checked: the network runs on none of the batches")
    return found


def _examples(net: Network, kind: Kind, module: Module, real: Sequence[tuple[Arrays, Arrays]]) -> Iterator[Example]:
    for count, frames in CHECKED:
        yield Example(f"batch of {count} sequences of {frames} frames", *batch(net, count, frames, kind))
    for of_data in real:
        yield Example("batch of the data", *of_data)
    if module.searches:
        for trial in range(TRIALS):
            scale = SCALES[trial % len(SCALES)]
            name = f"search with noise {scale:g} on the biases"
            yield Example(name, *batch(net, *NOISY, kind), scale, trial)


@contextmanager
def _noise(net: Network, made: torch.nn.Module, module: Module, example: Example) -> Iterator[None]:
    """While there is noise on the biases of both, as far as the module has them as they are."""
    with kept_params(net):
        generator, weights = torch.Generator().manual_seed(example.trial), made.state_dict()
        for attribute, name in module.biases.items() if example.noise else ():
            noisy = net.params[name] + example.noise * torch.randn(net.params[name].shape, generator=generator)
            net.params[name].data.copy_(noisy)
            weights[attribute].copy_(noisy)
        yield


def _gap(net: Network, layer: str, module: Module, made: torch.nn.Module, example: Example, wanted: Arrays) -> float:
    """The largest difference for an example."""
    torch.manual_seed(len(example.name))
    try:
        out = made(**module.chosen(as_inputs(example.data, example.lengths)))
    except (RuntimeError, IndexError, ValueError, TypeError) as exc:
        where = layer_of(module, exc) or f"network[{layer!r}]"
        said = str(exc).strip().partition("\n")[0]
        raise ConfigError(where, f"cannot be written: {example.name}: the module fails: {said}") from exc
    try:
        if module.searches:
            wanted, out = _without_padding(wanted), _without_padding(out)
        return max(difference(out[name], want, f"{example.name}: {name}") for name, want in wanted.items())
    except ConfigError as exc:
        where = _first_difference(net, module, made, example) or f"network[{layer!r}]"
        raise ConfigError(where, f"cannot be written: {exc.message}") from exc


def _without_padding(out: Arrays) -> Arrays:
    """Zeros behind the ends of hypotheses: what is there depends on when sequences leave the search."""
    x, lengths = out["output"], out.get("lengths")
    if lengths is None or x.dim() < 2 or len(lengths) != len(x) or x.shape[1] != lengths.max():
        return out
    valid = torch.arange(x.shape[1]) < lengths.unsqueeze(1)
    return {**out, "output": x.masked_fill(~valid.reshape(*valid.shape, *[1] * (x.dim() - 2)), 0)}


def _refuse_changes(layer: str, module: Module, made: torch.nn.Module, example: Example) -> None:
    """ConfigError if the module has changed its own numbers: the next batch would see others."""
    for name, x in made.state_dict().items():
        if not example.noise and not torch.equal(x, module.weights[name]):
            text = f"cannot be written: it changes {name!r} when it is evaluated, and reads it again"
            raise ConfigError(f"network[{layer!r}]", text)


def loaded_module(module: Module) -> torch.nn.Module:
    """The module with its weights, as it would be read from the files."""
    namespace: dict[str, object] = {"__name__": "net"}
    exec(compile(module.text, FILE, "exec"), namespace)  # noqa: S102 - it was written here
    net: torch.nn.Module = namespace["Net"]()  # type: ignore[operator]
    net.load_state_dict(module.weights)
    return net.eval()


def difference(found: torch.Tensor, wanted: torch.Tensor, what: str, *, task: str = "to_torch") -> float:
    """The largest difference over the largest value. ConfigError for other shapes and above the tolerance."""
    made = "module" if task == "to_torch" else "program"
    if found.shape != wanted.shape:
        text = f"the {made} gives shape {tuple(found.shape)}, the network {tuple(wanted.shape)}"
        raise ConfigError(task, f"{what}: {text}; nothing was written")
    apart = (found != wanted) & ~(found.isnan() & wanted.isnan())  # infinities are equal, too
    if not apart.any():
        return 0.0
    finite = wanted[wanted.isfinite()].double().abs()
    gap = (found[apart].double() - wanted[apart].double()).abs().max() / max(float(finite.max()), 1.0)
    if not float(gap) <= TOLERANCE:
        raise ConfigError(task, f"{what}: the {made} differs from the network by {float(gap):.2g}; nothing was written")
    return float(gap)


# --- which layer is wrong ---------------------------------------------------------------------------------------------


def layer_of(module: Module, exc: BaseException) -> str:
    """The path of the layer in whose lines of the module an error came up, "" if it was in none."""
    found = 0
    error: BaseException | None = exc
    while error is not None:
        trace: TracebackType | None = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            found = trace.tb_lineno if code.co_filename == FILE and code.co_name == "forward" else found
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    lines = module.text.splitlines()[:found]
    comments = [line.strip() for line in lines if re.match(r" +# .+: .+ -> ", line)]
    name = comments[-1][2:].partition(":")[0] if comments else ""
    return f"network[{name!r}]" if name else ""


def _first_difference(net: Network, module: Module, made: torch.nn.Module, example: Example) -> str:
    """The path of the first layer whose output is another one in the module, "" if none is."""
    seen: dict[str, object] = {}

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code.co_filename == FILE and frame.f_code.co_name == "forward":
            seen.update(frame.f_locals)

    before = sys.getprofile()
    torch.manual_seed(len(example.name))
    sys.setprofile(look)
    try:
        made(**module.chosen(as_inputs(example.data, example.lengths)))
    finally:
        sys.setprofile(before)
    with kept_params(net):
        seed(net, len(example.name))
        values = net(example.data, example.lengths).values
    for node in net.program.nodes:
        found = seen.get(module.layers.get(node.layer.path, ""))
        if node in values and isinstance(found, torch.Tensor):
            try:
                difference(found, values[node].data, "")
            except ConfigError:
                return node.layer.path
    return ""
