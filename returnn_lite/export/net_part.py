"""The output of a layer as a part to export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from returnn_lite.errors import ConfigError
from returnn_lite.export.part import Example, Part
from returnn_lite.export.ports import AxisNames, lengths_port
from returnn_lite.export.program import Arrays
from returnn_lite.network.network import Network
from returnn_lite.rec.loop_layer import RecLoop
from returnn_lite.to_torch.batches import Net, as_inputs, batch, results
from returnn_lite.to_torch.scope import Unwritable
from returnn_lite.to_torch.task import needed_keys, write

TRACED = (3, 37)  # sequences and frames of the first example
CHECKED = ((4, 31), (1, 17), (5, 40), (2, 25))
SHORT = ((1, 9), (2, 5), (1, 3), (1, 2), (2, 1), (1, 1))  # where the network itself can do that
CUT = 4  # frames by which all sequences of an example are shorter than its array
Real = tuple[Arrays, Arrays] | None


def net_part(net: Net, layer: str, real: Real) -> Part:
    """The layer's output for data and lengths by key; `real`: a batch to check it on. ConfigError for a search."""
    if isinstance(net, Network):
        refuse_search(net, layer)
    keys = needed_keys(net, layer)
    try:
        module = write(net, layer, keys=keys, padded=False)
    except Unwritable as exc:
        raise exc.as_error() from exc
    finally:
        if isinstance(net, Network):
            net.context.keeps_batch = False
    if module.draws:
        raise ConfigError(
            f"network[{layer!r}]", "cannot be exported: it draws random numbers, so its output cannot be compared"
        )
    examples = list(_examples(net, layer, real))
    names = AxisNames()
    first, (data, lengths) = examples[0], batch(net, *TRACED)
    inputs = [names.port(key, net.extern_data.spec(key), "data") for key in data if key in keys]
    inputs += [lengths_port(f"{key}_lengths", "lengths", x) for key, x in lengths.items() if key in keys]
    out = net(data, lengths)[layer].batch_front()
    outputs = [names.port("output", out.spec, "output")]
    if "lengths" in first.wanted:
        outputs.append(lengths_port("lengths", "lengths", first.wanted["lengths"]))
    return Part("", module, tuple(inputs), tuple(outputs), examples)


def refuse_search(net: Network, layer: str) -> None:
    """ConfigError for what comes out of a search."""
    node = net.program.names[layer]
    origin = node.sources[0] if node.layer.class_name == "decide" else node
    unit = origin.layer.loop.unit if isinstance(origin.layer, RecLoop) else {}
    if any(isinstance(inner, dict) and inner.get("class") == "choice" for inner in unit.values()):
        text = (
            f'is the search of a decoder; `export_loop = "{origin.name}"` exports a step of it for a search of your own'
        )
        raise ConfigError("forward_output_layer", f"layer {layer!r} {text}")


def _examples(net: Net, layer: str, real: Real) -> Iterator[Example]:
    for count, frames in (TRACED, *CHECKED):
        yield _example(net, layer, f"a batch of {count} sequences of {frames} frames", *batch(net, count, frames))
    if isinstance(net, Network):
        data, lengths = batch(net, 4, 33)
        cut = {key: (x - CUT).clamp(min=1) for key, x in lengths.items()}
        yield _example(net, layer, "a batch with more padding", data, cut)
    yield from short_examples(net, partial(results, net, layer))
    if real is not None:
        yield _example(net, layer, "a batch of the data", *real)


def _example(net: Net, layer: str, name: str, data: Arrays, lengths: Arrays) -> Example:
    return Example(name, as_inputs(data, lengths), dict(results(net, layer, data, lengths)))


def short_examples(net: Net, run: Callable[[Arrays, Arrays], Arrays]) -> Iterator[Example]:
    """Batches of few frames, where the network can do that; `run`: data and lengths by key -> outputs."""
    for count, frames in SHORT:
        data, lengths = batch(net, count, frames)
        try:
            wanted = run(data, lengths)
        except Exception:  # noqa: S112 - the network needs more frames
            continue
        yield Example(f"{count} sequences of {frames} frames", as_inputs(data, lengths), wanted, frames)
