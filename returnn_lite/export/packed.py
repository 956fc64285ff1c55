"""Packed sequences of torch as padded ones, whose sizes do not depend on lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from returnn_lite.ops.masked import frame_mask

_CLOSED = 1.0e4  # sigmoid is exactly 1 here, and exactly 0 at the negative value


class Packed:
    """Stands for `torch._pack_padded_sequence`, `torch.lstm` on its result, and `torch._pad_packed_sequence`.

    The packed data are the padded ones, (T, B, D), and the batch sizes (T,) are remembered with the lengths.
    """

    def __init__(self, lstm: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> None:
        self.call = lstm
        self.lengths: dict[
            int, tuple[Tensor, Tensor]
        ] = {}  # with the batch sizes, whose id is an id as long as they live

    def pack(self, x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
        """The data, the frame axis in front, and the batch sizes."""
        x = x.transpose(0, 1) if batch_first else x
        sizes = frame_mask(lengths, x.shape[0]).sum(0)
        self.lengths[id(sizes)] = lengths, sizes
        return x, sizes

    def pad(
        self, x: Tensor, sizes: Tensor, batch_first: bool, padding_value: float = 0.0, total_length: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The data with this value behind the ends, and the lengths."""
        lengths = self.lengths[id(sizes)][0]
        mask = frame_mask(lengths, x.shape[0]).t().unsqueeze(-1)
        padded = torch.where(mask, x, padding_value)
        return padded.transpose(0, 1) if batch_first else padded, lengths

    def lstm(
        self, x: Tensor, sizes: Tensor, state: tuple[Tensor, Tensor], params: Sequence[Tensor], *options: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All layers and directions, (T, B, D) -> (T, B, directions * H), and the states at the ends."""
        has_biases, layers, _, _, both = options
        lengths = self.lengths[id(sizes)][0]
        each, ends = 4 if has_biases else 2, []
        for layer in range(layers):
            outs = []
            for direction in range(1 + both):
                at = layer * (1 + both) + direction
                first = [s[at : at + 1] for s in state]
                out, *end = self._direction(x, lengths, first, params[each * at :][:each], reverse=direction == 1)
                outs.append(out)
                ends.append(end)
            x = torch.cat(outs, -1)
        h, c = (torch.stack(list(of_state)) for of_state in zip(*ends, strict=True))
        return x, h, c

    def _direction(
        self, x: Tensor, lengths: Tensor, first: Sequence[Tensor], params: Sequence[Tensor], *, reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One layer in one direction. In the padding one more input keeps the cell as it is."""
        frames = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
        padding = frames >= lengths
        order = torch.where(padding, frames, lengths - 1 - frames).unsqueeze(2)
        x = x.gather(0, order.expand(x.shape)) if reverse else x
        gates = params[0].new_zeros(4, params[0].shape[0] // 4)
        gates[0], gates[1] = -_CLOSED, _CLOSED
        weights = [torch.cat([params[0], gates.reshape(-1, 1)], 1), *params[1:]]
        x = torch.cat([x, padding.unsqueeze(2).to(x.dtype)], 2)
        out, _, cell = self.call(x, *first, weights, len(params) == 4, 1, False, False)
        last = out.gather(0, (lengths - 1).clamp(min=0).reshape(1, -1, 1).expand(1, -1, out.shape[2]))
        out = out.gather(0, order.expand(out.shape)) if reverse else out
        return out, last[0], cell[0]
