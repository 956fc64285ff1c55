"""Calls of torch in a form that exporting leaves whole, whatever the sizes of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor
from torch.overrides import TorchFunctionMode

from returnn_lite.export.packed import Packed

# Recurrent layers as one call each. Tracing would take those of torch apart into the frames of the example.


@torch.library.custom_op("returnn_lite::lstm", mutates_args=())
def lstm(
    x: Tensor, h: Tensor, c: Tensor, params: list[Tensor], has_biases: bool, layers: int, both: bool, batch_first: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`torch.lstm`: (T, B, D), two of (layers * directions, B, H) -> (T, B, directions * H), the last states."""
    out = torch.lstm(x, (h, c), params, has_biases, layers, 0.0, False, both, batch_first)
    return out[0].clone(), out[1].clone(), out[2].clone()


@lstm.register_fake
def _lstm_shapes(
    x: Tensor, h: Tensor, c: Tensor, params: list[Tensor], has_biases: bool, layers: int, both: bool, batch_first: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _output(x, h, both), torch.empty_like(h), torch.empty_like(c)


@torch.library.custom_op("returnn_lite::rnn_tanh", mutates_args=())
def rnn_tanh(
    x: Tensor, h: Tensor, params: list[Tensor], has_biases: bool, layers: int, both: bool, batch_first: bool
) -> tuple[Tensor, Tensor]:
    """`torch.rnn_tanh`: (T, B, D), (layers * directions, B, H) -> (T, B, directions * H), the last state."""
    out = torch.rnn_tanh(x, h, params, has_biases, layers, 0.0, False, both, batch_first)
    return out[0].clone(), out[1].clone()


@rnn_tanh.register_fake
def _rnn_shapes(
    x: Tensor, h: Tensor, params: list[Tensor], has_biases: bool, layers: int, both: bool, batch_first: bool
) -> tuple[Tensor, Tensor]:
    return _output(x, h, both), torch.empty_like(h)


def _output(x: Tensor, h: Tensor, both: bool) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], h.shape[2] * (2 if both else 1))


LSTM = torch.ops.returnn_lite.lstm.default
RNN_TANH = torch.ops.returnn_lite.rnn_tanh.default


class Portable(TorchFunctionMode):
    """While it is entered, calls that would tie an exported program to the sizes of its example are made otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.packed = Packed(LSTM)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        form = _FORMS.get(function, function)
        if function is torch._pack_padded_sequence:
            form = self.packed.pack
        elif function is torch._pad_packed_sequence:
            form = self.packed.pad
        elif function is torch.lstm and isinstance(args[1], Tensor):
            form = self.packed.lstm
        return form(*args, **(kwargs or {}))


def _one_lstm(x: Tensor, state: tuple[Tensor, Tensor], params: list[Tensor], *options: Any) -> Any:
    has_biases, layers, _, _, both, batch_first = options
    return LSTM(x, *state, params, has_biases, layers, both, batch_first)


def _one_rnn_tanh(x: Tensor, state: Tensor, params: list[Tensor], *options: Any) -> Any:
    has_biases, layers, _, _, both, batch_first = options
    return RNN_TANH(x, state, params, has_biases, layers, both, batch_first)


def _flat_max_pool(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, **more: Any
) -> Tensor:
    """The pooling of frames as one of pictures, which knows symbolic sizes."""
    size, step, margin, gap = (_one(v) for v in (kernel_size, stride or kernel_size, padding, dilation))
    wide: Tensor = F.max_pool2d(x.unsqueeze(-2), (1, size), (1, step), (0, margin), (1, gap), **more)
    return wide.squeeze(-2)


def _one(value: Any) -> int:
    return int(value[0] if isinstance(value, (tuple, list)) else value)


def _contiguous_attention(*args: Any, **kwargs: Any) -> Tensor:
    """Attention whose result lies in memory in one way, however it is computed."""
    return F.scaled_dot_product_attention(*args, **kwargs).clone(memory_format=torch.contiguous_format)


def _zeros(*size: Any, **options: Any) -> Tensor:
    """Zeros, of which sizes are in tensors."""
    sizes: list[Any] = [x.item() if isinstance(x, Tensor) else x for x in size]
    return torch.zeros(*sizes, **options)


_FORMS: dict[Any, Callable[..., Any]] = {
    torch.lstm: _one_lstm,
    torch.zeros: _zeros,
    torch.rnn_tanh: _one_rnn_tanh,
    F.max_pool1d: _flat_max_pool,
    torch.max_pool1d: _flat_max_pool,
    F.scaled_dot_product_attention: _contiguous_attention,
}


def with_torch_calls(graph: torch.fx.Graph) -> None:
    """Puts torch's own calls in place of `lstm` and `rnn_tanh`, so that a program runs where this package is not."""
    for node in graph.nodes:
        if node.target is LSTM:
            x, h, c, params, has_biases, layers, both, batch_first = node.args
            node.target = torch.ops.aten.lstm.input
            node.args = (x, [h, c], params, has_biases, layers, 0.0, False, both, batch_first)
        elif node.target is RNN_TANH:
            x, h, params, has_biases, layers, both, batch_first = node.args
            node.target = torch.ops.aten.rnn_tanh.input
            node.args = (x, h, params, has_biases, layers, 0.0, False, both, batch_first)
