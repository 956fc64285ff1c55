"""What the nets of one network share while it is constructed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.context import Context
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.params import ParamScope, ParamStore
from returnn_lite.network.extern import ExternData

N = TypeVar("N")  # the class of the nets


class Shared(Generic[N]):
    """What the nets of one network (root, sub-nets, loops) share while it is constructed.

    `asking`: the references that are being built, each for the sake of the one before it. `postponed`: nodes that get
    their parameters when nothing is being built. `homes`: the nets of the nodes with shared parameters.
    """

    def __init__(self, context: Context, store: ParamStore, extern: ExternData, overlay: Callable[[N, str], N]) -> None:
        self.context = context
        self.overlay = overlay
        self.store = store
        self.extern = extern
        self.scopes: dict[str, ParamScope] = {}
        self.modules: list[Layer] = []
        self.asking: dict[tuple[N, str], None] = {}
        self.postponed: list[tuple[N, Node]] = []
        self.homes: dict[Node, N] = {}
        self.in_building: set[Node] = set()
