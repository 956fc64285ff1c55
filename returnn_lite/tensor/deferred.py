"""`Deferred`: a Tensor whose data are computed when somebody reads them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from returnn_lite.ops.precision import HALF
from returnn_lite.tensor.tensor import PreActivation, Tensor

Activation = Callable[[torch.Tensor, int], torch.Tensor]


class Deferred(Tensor):
    """The output of `activation`, in float32, over the axis `over` of the values `pre`.

    Losses and searches read what a softmax is of, so that over many classes its result would be made for nothing.
    """

    __slots__ = ("_known", "activation", "over")
    pre: PreActivation

    def __init__(self, like: Tensor, pre: PreActivation, activation: Activation, over: int) -> None:
        """With the axes of `like`, and whatever else it knows."""
        self.spec, self.lengths, self.beam, self.pre = like.spec, like.lengths, like.beam, pre
        self.state, self.sequence_loss, self.parts = like.state, like.sequence_loss, like.parts
        self.zero_padded, self.single, self._tiles = like.zero_padded, None, None
        self.activation, self.over = activation, over
        self._known: list[torch.Tensor] = []  # the result, once there; copies share it

    @property
    def data(self) -> torch.Tensor:
        """The result, computed once; with a gradient wherever it is read first."""
        if not self._known:
            with torch.set_grad_enabled(self.pre.data.requires_grad):
                self._known.append(self.activation(self.pre.data, self.over))
        return self._known[0]

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        self._known = [value]

    @property
    def shape(self) -> torch.Size:
        """Sizes of all axes."""
        return self.pre.data.shape

    @property
    def device(self) -> torch.device:
        """Where the data lies."""
        return self.pre.data.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the data."""
        return torch.float32 if self.pre.data.dtype in HALF else self.pre.data.dtype

    def of(self, before: torch.Tensor) -> Deferred:
        """The same of other values before the activation."""
        return Deferred(self, PreActivation(self.pre.activation, before), self.activation, self.over)

    def copy(self) -> Deferred:
        """A shallow copy with all side entries."""
        made = self.of(self.pre.data)
        made._known = self._known
        return made

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Deferred:
        """A copy with changed values before the activation, and a changed result if it is there."""
        made = self.of(change(self.pre.data))
        made._known = [change(known) for known in self._known]
        return made

    def permuted(self, order: tuple[int, ...]) -> Tensor:
        """The axes in another order."""
        made = super().permuted(order)
        if isinstance(made, Deferred) and made is not self:
            made.over = order.index(self.over % len(order))
        return made
