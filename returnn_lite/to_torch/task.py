"""Task `to_torch`: writes a trained network of layers as a Python file that needs torch alone, and its weights."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch

from returnn_lite.config import Config, to_torch_runs
from returnn_lite.engine import data
from returnn_lite.engine.models.torch_model import TorchNet
from returnn_lite.engine.setup import load_network
from returnn_lite.errors import ConfigError
from returnn_lite.files import write_atomically
from returnn_lite.layers.core.node import Node
from returnn_lite.log import Log
from returnn_lite.network.network import Network
from returnn_lite.rec.loop_layer import RecLoop
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.to_torch.batches import (
    BATCHES,
    LONGER,
    UNPADDED,
    Kind,
    Net,
    as_inputs,
    batch,
    given,
    kept_params,
    kind_of_data,
    seed,
)
from returnn_lite.to_torch.checks import check
from returnn_lite.to_torch.folding import Folding
from returnn_lite.to_torch.loops import reads
from returnn_lite.to_torch.module import Module, Recording, make_module
from returnn_lite.to_torch.numbers import sizes_for_numbers
from returnn_lite.to_torch.pruning import needed_calls
from returnn_lite.to_torch.real_data import open_data, real_batches
from returnn_lite.to_torch.recorder import Ends, Recorder, Value
from returnn_lite.to_torch.scope import Unwritable

LAST_TICK = 9  # at least, of recorded loops that end by themselves: what the last ones compute shows in a few ticks


def to_torch_task(config: Config, log: Log) -> None:
    """Writes `to_torch_file` (default net.py) and the weights beside it (net.pt): a class `Net` and `load()`.

    The output is that of `forward_output_layer` (default "output"); with `to_torch_search` that of
    `search_output_layer`, found by beam search. The module takes batch-first tensors and lengths of sequences by data
    key, and gives a dict: "output", batch first, its "lengths", and the "scores" (B, K) of hypotheses. Before the files
    are written the module is run on batches of other sizes and of the data; it must agree within 1e-5. ConfigError for
    a network that no such file could compute.
    """
    filename = config.value("to_torch_file", "net.py")
    if not filename.endswith(".py"):
        raise ConfigError("to_torch_file", f'must end with ".py", but is {filename!r} instead')
    if config.typed_value("get_model") is not None:
        text = (
            "`to_torch` turns networks of layers into torch modules; this model is one already; see the task `export`"
        )
        raise ConfigError("get_model", text)
    config.update({"device": "cpu", "task": to_torch_runs(config)})
    dataset, missing = open_data(config, log)
    data.complete_extern_data(config, [dataset])
    search = config.is_true("to_torch_search")
    option = "search_output_layer" if search else "forward_output_layer"
    layer = config.value(option, "output")
    loaded = load_network(config, log, task="to_torch", search=search, eval=False, extra_layers=(layer,))
    net = cast(Network, loaded.net)
    weights_file = str(Path(filename).with_suffix(".pt"))
    source = os.path.basename(config.files[0]) if config.files else "a config"
    title = f"The network of {source}: {layer!r}, epoch {loaded.epoch}."
    try:
        module = write(net, layer, title, os.path.basename(weights_file), needed_keys(net, layer))
    except Unwritable as exc:
        raise exc.as_error() from exc
    found = check(net, layer, module, real_batches(config, net, dataset))
    on = f"{dataset.name} and random numbers" if dataset is not None else f"random numbers ({missing})"
    if found.tied and dataset is None:
        log.v1("note: the network takes random data of equal lengths only, so others were not checked")
    if module.searches and not found.ended_early:
        log.v1("note: in the check no hypothesis ended before others, so whether such searches agree is not known")
    if not module.weights:
        hint = "" if search else '; a layer inside of a loop is called as in "output/output_prob"'
        log.v1(f"note: {layer!r} depends on no parameter; `{option}` names another layer{hint}")
    write_atomically(weights_file, lambda file: torch.save(module.weights, file))
    write_atomically(filename, lambda file: file.write(module.text.encode()))
    lines = len(module.text.splitlines())
    log.v1(f"written: {filename} ({lines} lines), {weights_file}; checked on {on}, largest difference {found.gap:.1e}")


def write(
    net: Net,
    layer: str,
    title: str = "",
    weights_file: str = "net.pt",
    keys: Collection[str] | None = None,
    *,
    padded: bool = True,
) -> Module:
    """The module of a network. Where short sequences leave too few frames to see loops, longer ones are recorded.

    `keys`: those that it takes, all that the network reads by default. `padded`: the length of the longest sequence may
    differ from the size of the array.
    """
    comments = layer_comments(net) if isinstance(net, Network) else {}
    first: Unwritable | None = None
    kind = kind_of_data(net, layer, padded=padded)
    with _alike_ticks(net):
        for times in (1, LONGER):
            recordings = [record(net, layer, count, times * frames, keys, kind) for count, frames in BATCHES]
            if isinstance(net, TorchNet):
                sizes_for_numbers([recording.recorder for recording in recordings])
            try:
                return make_module(recordings, title, weights_file, comments)
            except Unwritable as exc:
                exc.layer = exc.layer or f"network[{layer!r}]"
                first = first or exc
    raise first or Unwritable("nothing was recorded")


@contextmanager
def _alike_ticks(net: Net) -> Iterator[None]:
    """While all ticks of a search compute the same, from the first one to its bound."""
    if not isinstance(net, Network):
        yield
        return
    net.context.keeps_batch = net.context.full_beam = True
    try:
        yield
    finally:
        net.context.keeps_batch = net.context.full_beam = False


def needed_keys(net: Net, layer: str) -> list[str]:
    """The data keys that the output of a layer depends on; other layers of the network may read more."""
    return keys_read(net, record(net, layer, *BATCHES[0], kind=kind_of_data(net, layer)))


def keys_read(net: Net, recording: Recording) -> list[str]:
    """The data keys that the outputs of a recording depend on; at least one, which tells the number of sequences."""
    calls, outputs = Folding(recording.recorder.calls).calls, recording.outputs.values()
    read = {x for i in needed_calls(calls, outputs) for x in reads(calls[i])} | {*outputs}
    names = {name for name, x in recording.recorder.inputs.items() if x in read}
    keys = list(batch(net, 2, 2)[0])
    return [key for key in keys if names & {key, f"{key}_lengths"}] or keys[:1]


def record(
    net: Net, layer: str, count: int, frames: int, keys: Collection[str] | None = None, kind: Kind = UNPADDED
) -> Recording:
    """A recording of a batch of `count` sequences of up to `frames` frames; `keys`: those that count as inputs."""
    arrays, lengths = batch(net, count, frames, kind)
    seed(net, count)
    ends = Ends(lambda: net.context.run, LAST_TICK + frames % 7) if isinstance(net, Network) else None
    recorder = Recorder(as_inputs(arrays, lengths, keys), dict(net.params), ends)
    with torch.no_grad(), kept_params(net), recorder:
        made = net(arrays, lengths)
        outputs = given(made[layer])
    layers = {} if isinstance(net, TorchNet) else made_by_layers(made.values, recorder)
    return Recording(recorder, {name: recorder.value(x) for name, x in outputs.items()}, layers)


def made_by_layers(outputs: Mapping[Node, Tensor], recorder: Recorder) -> dict[str, Value]:
    """The recorded outputs of layers, by their paths."""
    found = {node.layer.path: recorder.values.get(id(x.data)) for node, x in outputs.items()}
    return {path: x for path, x in found.items() if x is not None}


def layer_comments(net: Network) -> dict[str, str]:
    """A line for each layer by its path: name, class, axes of the output."""
    return {
        node.layer.path: f"{_full_name(node.layer.path)}: {node.layer.class_name} -> {_axes(node.spec)}"
        for node in _nodes(net.program.nodes)
    }


def _axes(spec: Spec | None) -> str:
    """The axes as in "(B, T(data), 40)", the type where it is not float32, and the number of classes."""
    if spec is None:
        return "?"
    sizes = ("B" if d.is_batch else str(d.size) if d.size is not None else f"T({_origin(d)})" for d in spec.dims)
    classes = f", {spec.sparse_dim.size} classes" if spec.sparse_dim is not None and spec.sparse_dim.size else ""
    return f"({', '.join(sizes)}){'' if spec.dtype == 'float32' else f' {spec.dtype}'}{classes}"


def _origin(dim: Dim) -> str:
    """The data key or the layer that an axis comes from."""
    before, _, key = dim.name.partition("extern_data:")
    return key or before.partition(":")[0]


def _full_name(path: str) -> str:
    return "/".join(name for name in re.findall(r'\["([^"]*)"\]', path) if name not in ("unit", "subnetwork"))


def _nodes(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """All nodes, those inside of loops too."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node.layer, RecLoop):
            program = node.layer.program
            waiting += [*program.before, *program.inside, *program.after]
