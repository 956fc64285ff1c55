"""What was marked in a step, as the engine's own values; and what one sequence of it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.dim_sizes import as_torch
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.loss import Loss
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.tensor_dict import TensorDict
from returnn_lite.network.objective import LossValue
from returnn_lite.tensor import AUTO, Lengths, Spec
from returnn_lite.tensor import Tensor as CoreTensor


def loss_value(loss: Loss) -> LossValue:
    """A loss of a step. Its norm factor is on the device of the loss."""
    total = loss.get_summed_loss().raw_tensor
    factor = loss.get_inv_norm_factor()
    norm = factor.raw_tensor.detach() if isinstance(factor, Tensor) else torch.tensor(factor)
    norm = norm.to(total.device, torch.float32, non_blocking=True)
    value, error = (None, total.detach()) if loss.as_error else (total, None)
    return LossValue(value, error, norm, float(loss.scale), loss.use_normalized_loss)


@dataclass(eq=False, slots=True)
class MarkedOutput(CoreTensor):
    """An output of a step, with the tensor that was marked."""

    marked: Any = None


def marked_output(tensor: Tensor) -> MarkedOutput:
    """An output of a step as the engine takes it. Half precision becomes float32, which files and numpy know."""
    tensor = in_single_precision(tensor)
    raw = tensor.raw_tensor if isinstance(tensor.raw_tensor, torch.Tensor) else torch.empty(tensor.raw_tensor.shape)
    sparse = None if tensor.sparse_dim is None else tensor.sparse_dim.core
    feature = tensor.feature_dim_axis if tensor.feature_dim_axis is not None else AUTO
    dims = tuple(dim.core for dim in tensor.dims)
    dtype = tensor.dtype if isinstance(tensor.raw_tensor, torch.Tensor) else "float32"
    spec = Spec(dims, dtype, sparse_dim=sparse, feature=None if sparse is not None else feature)
    lengths = {}
    for dim in tensor.dims:
        if not dim.core.is_batch and dim.is_dynamic():
            sizes = dim.get_size_tensor()
            axes = tuple(inner.core for inner in sizes.dims)
            values = as_torch(sizes)
            if not axes:  # one size for all sequences
                batch = batch_axis(tensor)
                values = values.expand(1 if batch is None else tensor.dims[batch].padded_size())
                axes = (dims[batch or 0],)
            lengths[dim.core] = Lengths(values, dim.padded_size(), axes)
    return MarkedOutput(raw.detach(), spec, lengths, marked=tensor)


def batch_axis(tensor: Tensor) -> int | None:
    """The position of the axis of the sequences, which need not be one by its kind."""
    return next((i for i, dim in enumerate(tensor.dims) if dim.core.is_batch), None)


def in_single_precision(tensor: Tensor) -> Tensor:
    """Half precision as float32."""
    raw = tensor.raw_tensor
    half = isinstance(raw, torch.Tensor) and raw.dtype in (torch.bfloat16, torch.float16)
    return tensor._like(raw.float()) if half else tensor


class Sequences:
    """The outputs of a batch, one sequence after the other: numpy arrays without the batch axis and padding."""

    def __init__(self, outputs: dict[str, Tensor]) -> None:
        self._arrays = {}
        for name, tensor in outputs.items():
            axis = batch_axis(tensor)
            if axis is None:
                raise WrongUse(f"output {name!r} must have the batch axis, but is {tensor}", "forward_step")
            first = tensor.copy_move_axis(axis, 0)
            raw = first.raw_tensor
            self._arrays[name] = (first, raw.detach().cpu().numpy() if isinstance(raw, torch.Tensor) else raw)

    def __getitem__(self, index: int) -> TensorDict:
        """The outputs of a sequence. Axes with sizes have that of this sequence."""
        own: dict[Dim, Dim] = {}
        found = TensorDict()
        for name, (tensor, array) in self._arrays.items():
            dims, row = [], np.asarray(array[index])
            batch = tensor.dims[0]
            for axis, dim in enumerate(tensor.dims[1:]):
                if dim not in own:
                    own[dim] = _of_sequence(dim, batch, index, own)
                dims.append(own[dim])
                if dim.need_masking():
                    row = row.take(range(own[dim].padded_size()), axis)
            found.data[name] = Tensor(
                name,
                dims,
                tensor.dtype,
                sparse_dim=tensor.sparse_dim,
                feature_dim_axis=None if tensor.feature_dim_axis is None else tensor.feature_dim_axis - 1,
                raw_tensor=row,
            )
        return found


def _of_sequence(dim: Dim, batch: Dim, index: int, own: dict[Dim, Dim]) -> Dim:
    """The axis with the sizes of one sequence."""
    sizes = dim.dyn_size_ext
    if dim.is_static() or sizes is None or batch not in sizes.dims:
        return dim
    at = sizes.dims.index(batch)
    rest = tuple(own.get(inner, inner) for inner in sizes.dims[:at] + sizes.dims[at + 1 :])
    values = np.asarray(as_torch(sizes).select(at, index).numpy())
    found = dim.copy(same_as_self=False, description=dim.name)
    found.extent().given = Tensor._new(values, rest, name=dim.name)
    return found
