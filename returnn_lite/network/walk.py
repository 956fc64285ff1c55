"""Ways over the nets of a network while it is built: what to start from, all nets inside, all nodes by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from returnn_lite.config_value import ConfigDict
from returnn_lite.errors import ConfigError, ConfigErrors
from returnn_lite.layers.core.context import Context
from returnn_lite.layers.core.linking import task
from returnn_lite.layers.core.node import Node
from returnn_lite.network.construct import Net


def nets_of(net: Net) -> Iterator[Net]:
    """The net and those inside, loops too, outer ones first."""
    waiting = [net]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += reversed(found.subnets.values())


@task
async def collect(start: Iterable[str], net: Net) -> None:
    """Builds all these nodes; errors of all of them are raised together."""
    errors: dict[str, ConfigError] = {}
    for name in start:
        try:
            await net.ask(name)
        except ConfigErrors as exc:
            errors |= {str(e): e for e in exc.errors}
        except ConfigError as exc:
            errors[str(exc)] = exc
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        raise ConfigErrors(list(errors.values()))


def named_nodes(root: Net) -> Iterator[tuple[Net, str, str, Node]]:
    """(net, prefix, name, node) of all nodes of a net; behind that of a sub-network (no loop) those inside of it."""
    waiting = [(root, "", iter(list(root.nodes.items())))]
    while waiting:
        net, prefix, items = waiting[-1]
        for name, node in items:
            yield net, prefix, name, node
            inner = net.subnets.get(name)
            if inner is not None and not inner.is_loop:
                waiting.append((inner, f"{prefix}{name}/", iter(list(inner.nodes.items()))))
                break
        else:
            waiting.pop()


def start_points(entries: ConfigDict, context: Context) -> list[str]:
    """The names that construction starts from: outputs, losses, output layers; by name."""
    found = []
    for name in sorted(n for n in entries if not n.startswith("#")):
        layer = entries[name]
        if not isinstance(layer, Mapping):
            raise ConfigError(f'network["{name}"]', f"a layer must be a dict, but is {layer!r} instead")
        if layer.get("only_on_search") and not context.search or layer.get("only_on_eval") and not context.losses:
            continue
        if name == "output" or name.endswith(":output") or layer.get("loss") or layer.get("is_output_layer"):
            found.append(name)
    return found
