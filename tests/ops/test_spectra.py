"""Transforms against numpy and against their definitions."""

import math

import numpy as np
import pytest
import torch

from returnn_lite.ops.spectra import dct_matrix, istft, mel_matrix, stft, window_function

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["hanning", "blackman", "ones"])
@pytest.mark.parametrize(("samples", "size", "shift", "fft"), [(20, 6, 4, 8), (20, 6, 6, 6), (5, 6, 2, 6)])
def test_stft_frame_by_frame(kind: str, samples: int, size: int, shift: int, fft: int) -> None:
    signal = torch.randn(2, samples, generator=torch.Generator().manual_seed(1))
    window = window_function(kind, size, CPU)
    found, whole = stft(signal, window, shift, fft), stft(signal, window, shift, fft, one_sided=False)
    count = max(0, math.ceil((samples - size + 1) / shift))
    assert found.shape == (2, count, fft // 2 + 1) and whole.shape == (2, count, fft)
    for i in range(count):
        frame = signal[:, i * shift : i * shift + size].numpy() * window.numpy()
        np.testing.assert_allclose(found[:, i], np.fft.rfft(frame, n=fft), atol=1e-5)
        np.testing.assert_allclose(whole[:, i], np.fft.fft(frame, n=fft), atol=1e-5)


def test_windows() -> None:
    n = np.arange(6)
    wanted = {
        "hanning": 0.5 - 0.5 * np.cos(2 * np.pi * n / 6),
        "blackman": 0.42 - 0.5 * np.cos(2 * np.pi * n / 6) + 0.08 * np.cos(4 * np.pi * n / 6),
        "None": np.ones(6),
    }
    for kind, values in wanted.items():
        np.testing.assert_allclose(window_function(kind, 6, CPU), values, atol=1e-6)


@pytest.mark.parametrize(("size", "shift", "fft"), [(8, 4, 8), (8, 2, 16), (6, 4, 8)])
def test_istft_gives_the_signal_back(size: int, shift: int, fft: int) -> None:
    signal = torch.randn(3, 42, generator=torch.Generator().manual_seed(1))
    window = window_function("hanning", size, CPU)
    back = istft(stft(signal, window, shift, fft), window, shift, fft)
    inside = slice(size, back.shape[-1] - size)
    torch.testing.assert_close(back[:, inside], signal[:, : back.shape[-1]][:, inside])
    assert istft(stft(signal[:, :3], window, shift, fft), window, shift, fft).shape == (3, size - shift)


def test_mel_filters() -> None:
    matrix = mel_matrix(257, 10, 16000, 512, 100.0, 7000.0)
    assert matrix.shape == (257, 10) and float(matrix.min()) == 0 and float(matrix.max()) <= 1
    low, high = (1125 * math.log(1 + f / 700) for f in (100.0, 7000.0))
    centres = [700 * (math.exp((low + (i + 1) * (high - low) / 11) / 1125) - 1) * 512 / 16000 for i in range(10)]
    for i, centre in enumerate(centres):
        assert abs(int(matrix[:, i].argmax()) - centre) <= 1
        others = [centres[i - 1] if i else 100 * 512 / 16000, centres[i + 1] if i < 9 else 7000 * 512 / 16000]
        used = matrix[:, i].nonzero().flatten()
        assert others[0] < int(used.min()) and int(used.max()) < others[1]


@pytest.mark.parametrize("ortho", [True, False])
def test_cosine_transforms(ortho: bool) -> None:
    forward, back = dct_matrix(5, ortho), dct_matrix(5, ortho, 3)
    x = torch.randn(5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(x @ forward @ back, x * (1.0 if ortho else 10.0))
    wanted = [2 * sum(float(x[n]) * math.cos(math.pi * k * (2 * n + 1) / 10) for n in range(5)) for k in range(5)]
    scale = [math.sqrt(1 / 20) if k == 0 else math.sqrt(1 / 10) for k in range(5)] if ortho else [1.0] * 5
    torch.testing.assert_close(x @ forward, torch.tensor([w * s for w, s in zip(wanted, scale, strict=True)]))
