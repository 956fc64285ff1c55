"""TensorFlow's `tf.nn`: softmax, top_k, cross entropies, convolutions."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from returnn_lite.compat.tf.maths import remember_exp
from returnn_lite.compat.tf.shapes import gather
from returnn_lite.compat.tf.values import as_tensor, pair, to_axes, to_int, to_ints
from returnn_lite.layers import activations
from returnn_lite.ops.convolution import convolution
from returnn_lite.ops.cross_entropy import pick
from returnn_lite.ops.windows import Window


class TopK(NamedTuple):
    """The greatest values, descending, and where they are (int32)."""

    values: Tensor
    indices: Tensor


def top_k(input: Any, k: Any = 1, sorted: bool = True) -> TopK:  # noqa: A002 - TensorFlow's words
    """Over the last axis; of equal values the one with the lower index comes first."""
    x, count = as_tensor(input), to_int(k)
    if count > x.size(-1):
        raise ValueError(f"input must have at least k = {count} columns, but has {x.size(-1)}")
    values, indices = x.sort(dim=-1, descending=True, stable=True)
    return TopK(values[..., :count], indices[..., :count].to(torch.int32))


def softmax(logits: Any, axis: Any = None, dim: Any = None) -> Tensor:
    """Over the last axis if none is given."""
    return activations.softmax(as_tensor(logits), _axis(axis, dim))


def log_softmax(logits: Any, axis: Any = None, dim: Any = None) -> Tensor:
    """Over the last axis if none is given."""
    x, axis = as_tensor(logits), _axis(axis, dim)
    return remember_exp(x.log_softmax(axis), lambda: x.softmax(axis))


def _axis(axis: Any, dim: Any) -> int:
    axis = dim if axis is None else axis
    return -1 if axis is None else to_int(axis)


def embedding_lookup(params: Any, ids: Any) -> Tensor:
    """Rows of a table."""
    return gather(params, ids, axis=0)


def bias_add(value: Any, bias: Any, data_format: str | None = None) -> Tensor:
    """Adds to the last axis; with a `data_format` "NC…" to the second."""
    x, b = pair(value, bias)
    if data_format and data_format.startswith("NC"):
        b = b.reshape([-1] + [1] * (x.dim() - 2))
    return x + b


def moments(x: Any, axes: Any, keepdims: bool = False, keep_dims: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and variance (divided by n) over axes."""
    x = as_tensor(x)
    over, keep = to_axes(axes, x.dim()), keepdims or keep_dims
    return x.mean(over, keepdim=keep), x.var(over, correction=0, keepdim=keep)


def sigmoid_cross_entropy_with_logits(labels: Any = None, logits: Any = None) -> Tensor:
    """max(z, 0) - z y + log(1 + e^-|z|), element-wise."""
    z, y = pair(logits, labels)
    return z.clamp(min=0) - z * y + torch.log1p(torch.exp(-z.abs()))


def softmax_cross_entropy_with_logits(
    labels: Any = None, logits: Any = None, axis: Any = None, dim: Any = None
) -> Tensor:
    """-sum labels log softmax(logits). Shape: (…, V) -> (…)"""
    z, y = pair(logits, labels)
    over = _axis(axis, dim)
    return -(y * z.log_softmax(over)).sum(over)


def sparse_softmax_cross_entropy_with_logits(labels: Any = None, logits: Any = None) -> Tensor:
    """-log softmax(logits)[label]. Shape: (…), (…, V) -> (…)"""
    z = as_tensor(logits)
    return -pick(z.log_softmax(-1), as_tensor(labels).to(z.device))


def leaky_relu(features: Any, alpha: float = 0.2) -> Tensor:
    """x > 0: x, else alpha x"""
    return F.leaky_relu(as_tensor(features), alpha)


def gelu(features: Any, approximate: bool = False) -> Tensor:
    """x Phi(x)"""
    return F.gelu(as_tensor(features), approximate="tanh" if approximate else "none")


def conv1d(input: Any = None, filters: Any = None, stride: Any = 1, padding: str = "VALID", **options: Any) -> Tensor:  # noqa: A002
    """Shape: (B, T, in), (size, in, out) -> (B, T', out)"""
    return _convolution(input, filters, stride, padding, options)


def conv2d(input: Any = None, filter: Any = None, strides: Any = 1, padding: str = "VALID", **options: Any) -> Tensor:  # noqa: A002
    """Shape: (B, H, W, in), (size, size, in, out) -> (B, H', W', out)"""
    return _convolution(input, filter, strides, padding, options)


def _convolution(x: Any, kernel: Any, strides: Any, padding: str, options: dict[str, Any]) -> Tensor:
    kernel = options.pop("filters", kernel)
    x = as_tensor(options.pop("value", x))
    spatial = x.dim() - 2
    stride = _spatial(strides, spatial)
    dilation = _spatial(options.pop("dilations", 1), spatial)
    if options.pop("data_format", None) not in (None, "NHWC", "NWC") or set(options) - {"use_cudnn_on_gpu"}:
        raise ValueError("tf.nn.conv: the feature axis must be the last; further options are not supported")
    kernel, mode = as_tensor(kernel), "same" if padding.upper() == "SAME" else "valid"
    rows = zip(kernel.shape, stride, dilation, strict=False)
    windows = [Window(size, step, apart, mode) for size, step, apart in rows]
    weight = kernel.movedim((-1, -2), (0, 1))
    ragged = [True] * spatial
    return convolution(x.movedim(-1, 1), weight, None, windows, ragged=ragged).movedim(1, -1)


def _spatial(value: Any, spatial: int) -> list[int]:
    """One number per spatial axis; TensorFlow's lists may count batch and feature."""
    numbers = to_ints(value)
    if len(numbers) == spatial + 2:
        numbers = numbers[1:-1]
    return numbers * spatial if len(numbers) == 1 else numbers


def l2_loss(t: Any) -> Tensor:
    """Half the sum of squares."""
    return as_tensor(t).square().sum() / 2


def in_top_k(predictions: Any, targets: Any, k: Any) -> Tensor:
    """Whether less than k entries of a row are greater than that of its target.  Shape: (B, C), (B,) -> (B,) bool"""
    x, at = as_tensor(predictions), as_tensor(targets).long().unsqueeze(-1)
    return (x > x.gather(-1, at)).sum(-1) < to_int(k)


def all_functions() -> dict[str, Any]:
    """The functions by TensorFlow's names, without those that `tf.nn` shares with `tf.math`."""
    own = [
        top_k, softmax, log_softmax, embedding_lookup, bias_add, moments, sigmoid_cross_entropy_with_logits,
        softmax_cross_entropy_with_logits, sparse_softmax_cross_entropy_with_logits, leaky_relu, gelu, conv1d, conv2d,
        l2_loss, in_top_k,
    ]  # fmt: skip
    simple = {"relu": F.relu, "relu6": F.relu6, "elu": F.elu, "selu": F.selu, "softsign": F.softsign}
    functions = {function.__name__: function for function in own}
    functions |= {name: (lambda features, f=function: f(as_tensor(features))) for name, function in simple.items()}
    functions["swish"] = functions["silu"] = lambda features: F.silu(as_tensor(features))
    functions["softmax_cross_entropy_with_logits_v2"] = softmax_cross_entropy_with_logits
    return functions
