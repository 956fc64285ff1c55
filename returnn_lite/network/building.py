"""A node's Spec and parameters, when it is constructed, and its output, when the net runs."""

from __future__ import annotations

from collections.abc import Callable

from returnn_lite.config.config_code import code_error, code_place
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.node import Node
from returnn_lite.network.output_options import check_output, steps_after
from returnn_lite.network.substituted_params import slots, substituted
from returnn_lite.tensor import Spec, Tensor


def infer(node: Node) -> Spec | None:
    """Computes the Spec from those of the inputs; errors get the layer's path."""
    specs = tuple(n.spec for n in node.sources)
    refs = {k: n.spec for k, n in node.refs.items()}
    try:
        node.spec = node.layer.output_spec(specs, refs)
    except ConfigError as exc:
        raise _located(node, exc) from exc
    except Exception as exc:  # a value that no check has refused
        raise _failed(node, exc) from exc
    return node.spec


def build(node: Node) -> None:
    """Makes the layer's parameters. All Specs must be known."""
    missing = [n.name for n in (*node.inputs, node) if n.spec is None]
    if missing:
        raise node.layer.error(f"the axes of {', '.join(map(repr, missing))} could not be determined")
    try:
        specs = tuple(n.spec for n in node.sources if n.spec is not None)
        refs = {k: n.spec for k, n in node.refs.items() if n.spec is not None}
        node.layer.build_with(specs, refs)
        if node.spec is not None:
            check_output(node.layer, node.spec)
            node.after = steps_after(node.layer, node.spec)
    except ConfigError as exc:
        raise _located(node, exc) from exc
    except Exception as exc:  # a value that no check has refused
        raise _failed(node, exc) from exc
    scope = node.layer.scope
    derived = [d for d in scope.derived.values() if d.node is not None] if scope is not None else []
    node.outputs_as_params = [(slots(node.layer, d.placeholder), d) for d in derived]


def compute(node: Node, values: dict[Node, Tensor]) -> Tensor:
    """The layer's output, its inputs taken from `values`."""
    sources = [values[n] for n in node.sources]
    refs = {k: values[n] for k, n in node.refs.items()} if node.refs else {}
    try:
        if node.outputs_as_params:
            with substituted([(at, values[d.node].data.permute(d.order)) for at, d in node.outputs_as_params]):
                out = node.layer.run(sources, refs)
        else:
            out = node.layer.run(sources, refs)
        for step in node.after:
            out = step(out, sources)
        return out
    except ConfigError as exc:
        raise _located(node, exc) from exc
    except Exception as exc:
        if "out of memory" in str(exc) or type(exc).__module__.startswith("torch._dynamo"):
            raise
        inputs = ", ".join(f"{n.name!r} {n.spec} {tuple(values[n].shape)}" for n in node.inputs)
        raise _failed(node, exc, f"; inputs: {inputs}") from exc


def short_cut(node: Node) -> Callable[[object, dict[Node, Tensor], int], Tensor] | None:
    """What does the same as `compute` for a layer that only computes on one source, in fewer steps; None for others.

    As in ticks it is given them, the values, and the number of the tick.
    """
    layer = node.layer
    more = node.refs or node.after or node.outputs_as_params or layer.options.dropout or layer.options.in_dim
    own = "run" in vars(layer) or type(layer).run is not Layer.run or type(layer).run_input is not Layer.run_input
    if more or own or layer.sources != "one" or len(node.sources) != 1 or layer.full_precision:
        return None
    source, forward = node.sources[0], layer.forward

    def computed(_: object, values: dict[Node, Tensor], tick: int) -> Tensor:
        try:
            return forward(values[source])
        except Exception:
            return compute(node, values)  # the error with its place

    return computed


def _failed(node: Node, exc: Exception, more: str = "") -> ConfigError:
    """The error for an exception in the layer, with the line of the config if its code is there."""
    place = code_place(exc.__traceback__)
    if place is not None:
        error = code_error(exc, place)
        return node.layer.error(f"{error.path}: {error.message}{more}")
    first = (str(exc).strip() or "no message").splitlines()[0]
    return node.layer.error(f"{type(exc).__name__} in layer class {node.layer.class_name!r}: {first}{more}")


def _located(node: Node, exc: ConfigError) -> ConfigError:
    """The same error with the layer's path in front, if it has no layer path yet."""
    if exc.path.startswith("network"):
        return exc
    option = f"[{exc.path!r}]" if exc.path else ""
    return ConfigError(f"{node.layer.path}{option}", exc.message)
