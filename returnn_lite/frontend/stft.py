"""Short-time Fourier transform."""

from __future__ import annotations

import torch

import returnn_lite.ops.spectra as ops_spectra
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import axis_of
from returnn_lite.frontend.sizes import use_mask_default
from returnn_lite.frontend.tensor import Tensor


def stft(
    x: Tensor,
    *,
    in_spatial_dim: Dim,
    frame_step: int,
    frame_length: int,
    fft_length: int | None = None,
    window_use_frame_length: bool = True,
    align_window_left: bool = True,
    window_enforce_even: bool = True,
    out_spatial_dim: Dim | None = None,
    out_dim: Dim | None = None,
    use_mask: bool | None = None,
) -> tuple[Tensor, Dim, Dim]:
    """Complex spectra of frames with a periodic Hann window, not centred: (tensor, time axis, frequency axis).

    Lengths are in samples. Axes: the others, frequencies (fft_length // 2 + 1), frames. Frames of `frame_length` lie
    within the signal. A window shorter than the transform has zeros at its right (`align_window_left`) or on both
    sides; `window_enforce_even` takes one sample off an odd one. window_use_frame_length: changes no number.
    """
    fft = frame_length if fft_length is None else fft_length
    if fft < frame_length:
        raise WrongUse(f"stft of {x}: `fft_length` must be at least {frame_length}, but is {fft} instead")
    default = use_mask_default(default=True, default_false_for_behavior_version_up_to=22, func_name="stft")
    if default if use_mask is None else use_mask:
        x = x.copy_masked(0, dims=[in_spatial_dim])
    frames = in_spatial_dim.sub_right(frame_length - 1).ceildiv_right(frame_step)
    bins = out_dim if out_dim is not None else Dim(fft // 2 + 1, name="stft-freq")
    if out_spatial_dim is not None:
        out_spatial_dim.declare_same_as(frames)
        frames = out_spatial_dim
    at = axis_of(x.dims, in_spatial_dim, x)
    signal = torch.nn.functional.pad(x.raw_tensor.movedim(at, -1), (0, fft - frame_length))
    window = _window(frame_length - frame_length % 2 if window_enforce_even else frame_length, fft, align_window_left)
    spectrum = ops_spectra.stft(signal, window.to(signal.device), frame_step, fft)
    dims = (*x.dims[:at], *x.dims[at + 1 :], bins, frames)
    found = x._new(spectrum.transpose(-1, -2), dims, feature_axis=len(dims) - 2, name="stft")
    return found, frames, bins


def _window(size: int, fft: int, left: bool) -> torch.Tensor:
    """The window as long as the transform."""
    window = torch.hann_window(size, periodic=True)
    before = 0 if left else (fft - size) // 2
    return torch.nn.functional.pad(window, (before, fft - size - before))
