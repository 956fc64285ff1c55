"""What encoders have in common."""

from __future__ import annotations

from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.tensor import Tensor


class IEncoder(Module):
    """Maps a tensor to one with the features `out_dim`."""

    out_dim: Dim

    def __call__(self, source: Tensor) -> Tensor:
        """The encoded tensor."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


class ISeqFramewiseEncoder(Module):
    """Maps a sequence to one with as many frames, and the features `out_dim`."""

    out_dim: Dim

    def __call__(self, source: Tensor, *, spatial_dim: Dim) -> Tensor:
        """The encoded sequence."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


class ISeqDownsamplingEncoder(Module):
    """Maps a sequence to one with `downsample_factor` times fewer frames, and the features `out_dim`."""

    out_dim: Dim
    downsample_factor: int

    def __call__(self, source: Tensor, *, in_spatial_dim: Dim) -> tuple[Tensor, Dim]:
        """(the encoded sequence, its axis)."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")
