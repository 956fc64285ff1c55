"""Mel features."""

from __future__ import annotations

import math
from functools import cache

import torch

import returnn_lite.ops.spectra as ops_spectra
from returnn_lite.frontend.axes import squeeze
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.linear import moved_last
from returnn_lite.frontend.stft import stft
from returnn_lite.frontend.tensor import Tensor


def mel_filterbank(
    x: Tensor,
    *,
    in_dim: Dim,
    out_dim: Dim,
    sampling_rate: int | float,
    fft_length: int | None = None,
    f_min: int | float | None = None,
    f_max: int | float | None = None,
) -> Tensor:
    """Triangular filters over frequencies, equally spaced on the mel scale. `out_dim` is the last axis.

    in_dim: the fft_length // 2 + 1 frequencies. f_min, f_max: Hz, by default 0 and half of the rate.
    """
    bins, filters = in_dim.padded_size(), out_dim.padded_size()
    fft = (bins - 1) * 2 if fft_length is None else fft_length
    low, high = float(f_min or 0), float(f_max or sampling_rate / 2)
    raw, rest = moved_last(x, in_dim, "mel_filterbank")
    matrix = _filters(bins, filters, sampling_rate, fft, low, high).to(raw.device, raw.dtype)
    return x._new(raw @ matrix, (*rest, out_dim), feature_axis=len(rest), name="mel")


@cache
def _filters(bins: int, filters: int, rate: int | float, fft: int, low: float, high: float) -> torch.Tensor:
    return ops_spectra.mel_matrix(bins, filters, rate, fft, low, high)


def log_mel_filterbank_from_raw(
    raw_audio: Tensor,
    *,
    in_spatial_dim: Dim,
    out_dim: Dim,
    sampling_rate: int = 16_000,
    window_len: float = 0.025,
    step_len: float = 0.010,
    n_fft: int | None = None,
    log_base: int | float = 10,
) -> tuple[Tensor, Dim]:
    """Logarithms of mel features of samples: (tensor with the axes batch …, frames, `out_dim`, the axis of frames).

    window_len, step_len: seconds. n_fft: by default the least power of two that a window fits into.
    """
    if raw_audio.feature_dim is not None and raw_audio.feature_dim.dimension == 1:
        raw_audio = squeeze(raw_audio, raw_audio.feature_dim)
    window, step = int(window_len * sampling_rate), int(step_len * sampling_rate)
    if window < 1 or step < 1:
        raise WrongUse(f"window_len {window_len} and step_len {step_len} must be one sample at least")
    fft = 2 ** math.ceil(math.log2(window)) if n_fft is None else n_fft
    spectrum, frames, bins = stft(
        raw_audio, in_spatial_dim=in_spatial_dim, frame_step=step, frame_length=window, fft_length=fft
    )
    raw, rest = moved_last(spectrum, bins, "log_mel_filterbank_from_raw")
    power = spectrum._new(raw.real.square() + raw.imag.square(), (*rest, bins))
    found = mel_filterbank(power, in_dim=bins, out_dim=out_dim, sampling_rate=sampling_rate, fft_length=fft)
    logs = found.raw_tensor.clamp(min=1e-10).log() / math.log(log_base)
    return found._like(logs), frames
