"""Order and padding of the frames of a batch: what is run through, from which end, and where it stops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from returnn_lite.ops.kernels import on_gpu


class Frames:
    """The valid frames of a time-major batch (T, B, …) and the order in which they are processed.

    `lengths` (B,) int or None (all sequences have T frames).  In reverse order each sequence starts with its own last
    valid frame; padding stays at the end in either order.  `padding` is (T, B) bool, or None where there is none.
    """

    def __init__(self, lengths: Tensor | None, num_frames: int, *, reverse: bool, device: torch.device) -> None:
        self.num_frames = num_frames
        self.reverse = reverse
        self.lengths: Tensor | None = None
        self.padding: Tensor | None = None
        self._rows: Tensor | None = None  # (T*B,) row of the flat input for each row in processing order
        if lengths is None or not _ragged(lengths, num_frames):
            return
        self.lengths = lengths.to(device=device, dtype=torch.int64)
        ticks = torch.arange(num_frames, device=device).unsqueeze(1)  # (T, 1)
        self.padding = ticks >= self.lengths
        if reverse:
            batch = self.lengths.shape[0]
            source = torch.where(self.padding, ticks, self.lengths - 1 - ticks)
            self._rows = (source * batch + torch.arange(batch, device=device)).flatten()

    def enter(self, x: Tensor, *, zero_padded: bool = False) -> Tensor:
        """(T, B, …) -> the same shape in processing order, with zeros in the padding, which x has already if it is
        `zero_padded`. There the gradient of what is computed from it must be 0, as after `leave`."""
        if self.padding is None:
            return x.flip(0) if self.reverse else x
        if zero_padded and self._rows is None:
            return x
        padding = None if zero_padded else self.padding
        if not x.is_floating_point():
            return _arrange(x, self._rows, padding)
        result: Tensor = _Arrange.apply(x, self._rows, padding, None)  # type: ignore[no-untyped-call]
        return result

    def leave(self, x: Tensor) -> Tensor:
        """(T, B, …) in processing order -> the same shape as it was before, with zeros in the padding."""
        if self.padding is None:
            return x.flip(0) if self.reverse else x
        result: Tensor = _Arrange.apply(x, self._rows, self.padding, self.padding)  # type: ignore[no-untyped-call]
        return result

    def last(self, x: Tensor, initial: Tensor) -> Tensor:
        """Processing order (T, B, H) -> (B, H): the last valid frame; `initial` (B, H) for empty sequences."""
        if self.lengths is None:
            return x[-1]
        index = (self.lengths - 1).clamp(min=0).view(1, -1, 1).expand(1, -1, x.shape[2])
        return torch.where((self.lengths > 0).unsqueeze(1), x.gather(0, index).squeeze(0), initial)


def _ragged(lengths: Tensor, num_frames: int) -> bool:
    # On an accelerator the question would wait for all work in the queue; there, assume so.
    return on_gpu(lengths) or bool((lengths < num_frames).any())


def _arrange(x: Tensor, rows: Tensor | None, padding: Tensor | None) -> Tensor:
    """The rows in another order, in memory of their own, with zeros in the padding, if given."""
    if rows is None:
        flat = x.clone(memory_format=torch.contiguous_format).view(x.shape[:2].numel(), -1)
    else:
        flat = x.reshape(len(rows), -1).index_select(0, rows)
    if padding is None:
        return flat.view(x.shape)
    if on_gpu(flat):
        flat.masked_fill_(padding.reshape(-1, 1), 0)
    else:  # a bool mask is broadcast slowly here
        flat.index_fill_(0, padding.flatten().nonzero().squeeze(1), 0)
    return flat.view(x.shape)


class _Arrange(torch.autograd.Function):
    """Swaps pairs of valid rows and zeros the others. So does the gradient, which may do without zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor | None, padding: Tensor | None, of_gradient: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, padding, of_gradient)
        return _arrange(x, rows, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        rows, padding, of_gradient = ctx.saved_tensors
        if rows is None and of_gradient is None:
            return grad, None, None, None
        back = _Arrange.apply(grad, rows, of_gradient, padding)  # type: ignore[no-untyped-call]
        return back, None, None, None
