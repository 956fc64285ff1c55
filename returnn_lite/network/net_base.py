"""`NetBase`: what a net is made of while it is built, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Generic, TypeVar

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.context import Context
from returnn_lite.layers.core.node import NamedNet, Node
from returnn_lite.network.shared import Shared
from returnn_lite.tensor.foreign import with_core_dims

N = TypeVar("N", bound="NetBase[Any]")  # the class of the nets
SHOWN_ASKERS = 20  # of a longer chain error texts show both ends


class NetBase(Generic[N]):
    """A dict of layers: `descriptions`; `nodes` by the names that were asked for, `order`: in which they run.

    `subnets`: nets inside by the names of their layers, `overlays` by their own; `given`: what names mean that are in
    no dict. In an `immediate` net Specs and parameters are made as nodes are linked, else when all are.
    """

    immediate = True
    is_loop = False

    def __init__(
        self,
        descriptions: Mapping[str, Any],
        shared: Shared[N],
        *,
        path: str,
        prefix: str = "",
        parent: N | None = None,
        trainable: bool = True,
    ) -> None:
        if not isinstance(descriptions, Mapping):
            raise ConfigError(path, f"must be a dict of layers, but is {type(descriptions).__name__} instead")
        for name in descriptions:
            if not isinstance(name, str):
                raise ConfigError(path, f"the names of layers must be strs, but {name!r} is not")
        self.descriptions: Mapping[str, Any] = with_core_dims(descriptions)
        self.shared = shared
        self.path = path
        self.prefix = prefix
        self.parent = parent
        self.trainable = trainable and descriptions.get("#trainable", True) is not False
        self.nodes: dict[str, Node] = {}
        self.names: NamedNet = NamedNet(prefix, self.nodes, parent.names if parent is not None else None)
        self.order: list[Node] = parent.order if parent is not None else []
        self.subnets: dict[str, N] = {}
        self.overlays: dict[str, N] = {}
        self.given: dict[str, Node] = {}

    @property
    def context(self) -> Context:
        """What all layers share."""
        return self.shared.context

    @property
    def in_loop(self) -> bool:
        """Whether the layers are those of a loop, or of a sub-network inside one."""
        return self.is_loop

    @property
    def inside_loop(self) -> bool:
        """Whether there is a loop somewhere around the net, or the net is one."""
        net: NetBase[N] | None = self
        while net is not None and not net.is_loop:
            net = net.parent
        return net is not None

    @property
    def depth(self) -> int:
        """How many nets there are around it."""
        net, depth = self.parent, 0
        while net is not None:
            net, depth = net.parent, depth + 1
        return depth

    def has_layer(self, name: str) -> bool:
        """Whether the dict describes a layer of this name."""
        return name in self.descriptions

    # --- texts --------------------------------------------------------------------------------------------------------

    def asker(self) -> str:
        """The path of the layer that asks for the present one."""
        asker = next(islice(reversed(self.shared.asking), 1, 2), None)
        return self.path if asker is None else asker[0].layer_path(asker[1])

    def layer_path(self, name: str) -> str:
        """A layer in config syntax: network["output"]["unit"]["att"]."""
        return f'{self.path}["{name}"]'

    def not_found(self, name: str) -> ConfigError:
        """The error of a reference to nothing."""
        known = [n for n in self.descriptions if not n.startswith("#")]
        askers = reading([repr(n) for _, n in islice(reversed(self.shared.asking), 1, None)])
        asked = f"; required by {askers}" if askers else ""
        return ConfigError(self.asker(), f"layer {name!r} not found{did_you_mean(name, known)}{asked}")

    def tell(self, node: Node) -> None:
        """One log line per layer with its axes."""
        if node.description:
            self.context.log.v3(f"layer {self.path}/{node.name!r}: {node.spec}")

    def target_name(self, target: ConfigValue) -> str:
        """The first of the targets, or the default one; "data:x" and "base:x" are names of layers."""
        if isinstance(target, (list, tuple)):
            target = target[0] if target else None
        name = str(target) if target else self.shared.extern.default_target
        return f"layer:{name}" if name.startswith(("data:", "base:")) and name not in self.descriptions else name


def reading(names: list[str]) -> str:
    """Askers, each reading the one before it; of a long chain both ends."""
    if len(names) > SHOWN_ASKERS:
        half = SHOWN_ASKERS // 2
        names = [*names[:half], f"({len(names) - 2 * half} more)", *names[-half:]]
    return " <- ".join(names)
