"""Short-time Fourier transforms and fixed transforms of feature vectors: mel filters, cosines."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from returnn_lite.ops.windows import overlap_add, sliding

WINDOW_KINDS = ("hanning", "blackman", "ones", "None")


def window_function(kind: str, size: int, device: torch.device) -> Tensor:
    """One of WINDOW_KINDS, periodic; Hann: 0.5 - 0.5 cos(2 pi n / size).  Shape: -> (size,)"""
    if kind == "hanning":
        return torch.hann_window(size, periodic=True, device=device)
    if kind == "blackman":
        return torch.blackman_window(size, periodic=True, device=device)
    return torch.ones(size, device=device)


def stft(signal: Tensor, window: Tensor, shift: int, fft_size: int, *, one_sided: bool = True) -> Tensor:
    """Fourier transform of frames of W samples, `shift` apart, not centred, with zeros up to `fft_size`.

    Shape: (…, N), (W,) -> (…, n, fft_size // 2 + 1) complex, n = max(0, ceil((N - W + 1) / shift)); all fft_size bins
    unless `one_sided`.
    """
    parts = sliding(signal, -1, window.shape[0], shift) * window
    if parts.numel() == 0:  # which the transforms refuse
        bins = fft_size // 2 + 1 if one_sided else fft_size
        return torch.zeros((*parts.shape[:-1], bins), dtype=torch.complex64, device=signal.device)
    result: Tensor = torch.fft.rfft(parts, n=fft_size) if one_sided else torch.fft.fft(parts, n=fft_size)
    return result


def istft(spectrum: Tensor, window: Tensor, shift: int, fft_size: int) -> Tensor:
    """The signal whose `stft` this is; overlapping frames are weighted so that they add up to it.

    Shape: (…, n, fft_size // 2 + 1) complex, (W,) -> (…, (n - 1) * shift + W)
    """
    size = window.shape[0]
    if spectrum.numel() == 0:  # which the transform refuses
        samples = (spectrum.shape[-2] - 1) * shift + size
        return torch.zeros((*spectrum.shape[:-2], max(samples, 0)), dtype=window.dtype, device=spectrum.device)
    parts = torch.fft.irfft(spectrum, n=fft_size)[..., :size]
    parts = F.pad(parts, (0, size - parts.shape[-1])) * synthesis_window(window, shift)
    return overlap_add(parts, -2, shift)


def synthesis_window(window: Tensor, shift: int) -> Tensor:
    """The window over the sum of the squares of all windows that overlap at a position.  Shape: (W,) -> (W,)"""
    size = window.shape[0]
    overlaps = -(-size // shift)
    squares = F.pad(window.square(), (0, overlaps * shift - size))
    total = squares.reshape(overlaps, shift).sum(0).repeat(overlaps)[:size]
    return torch.where(total > 0, window / total.clamp(min=torch.finfo(total.dtype).tiny), torch.zeros_like(window))


def mel_matrix(bins: int, filters: int, rate: float, fft_size: int, f_min: float, f_max: float) -> Tensor:
    """Triangular filters (bins, filters), peaks of 1 equally spaced on the mel scale 1125 ln(1 + f / 700); f in Hz."""

    def mel(f: float) -> float:
        return 1125.0 * math.log(1.0 + f / 700.0)

    points = np.linspace(mel(f_min), mel(f_max), filters + 2)
    centres = (fft_size / rate * 700.0 * (np.exp(points / 1125.0) - 1.0)).astype(np.float32)
    left, centre, right = centres[:-2], centres[1:-1], centres[2:]
    at = np.arange(bins, dtype=np.float32)[:, None]
    rising = (at - left) / (centre - left)
    falling = (right - at) / (right - centre)
    inside = (at > left) & (at < right)
    return torch.from_numpy(np.where(inside, np.where(at < centre, rising, falling), 0.0).astype(np.float32))


@cache
def dct_matrix(size: int, ortho: bool, kind: int = 2) -> Tensor:
    """M of y = x M, the discrete cosine transform of type 2, or 3 (its inverse up to a factor).  Shape: -> (N, N)

    Type 2: y_k = 2 sum_n x_n cos(pi k (2 n + 1) / (2 N)); `ortho`: times sqrt(1 / 4N) for k = 0, else sqrt(1 / 2N).
    """
    n = np.arange(size)
    matrix = 2.0 * np.cos(math.pi * np.outer(2 * n + 1, n) / (2 * size))
    if ortho:
        matrix = matrix * np.where(n == 0, math.sqrt(1 / (4 * size)), math.sqrt(1 / (2 * size)))
    if kind == 3:
        matrix = matrix.T.copy()
        if not ortho:
            matrix[0] /= 2.0
    return torch.from_numpy(matrix.astype(np.float32))
