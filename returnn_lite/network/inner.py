"""Layers that hold layers of their own which the net outside may read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.node import Node
from returnn_lite.network.construct import Net
from returnn_lite.network.recomputation import Step


class InnerLayers(Layer):
    """Base of such layers; from outside an inner layer is read as the part of its label."""

    @abstractmethod
    def inner_nodes(self) -> Mapping[str, Node]:
        """The inner layers by label."""

    @abstractmethod
    def inner_steps(self) -> list[tuple[Step, ...]]:
        """What runs one after the other: (inner node, what computes its output), those of the ticks as one."""

    @abstractmethod
    def loss_nodes(self) -> Iterator[tuple[str, Net, Node]]:
        """(label, net, node) of the inner layers with a loss."""
