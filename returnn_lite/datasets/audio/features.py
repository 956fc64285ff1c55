"""Features of audio: mel filterbanks, MFCCs, spectra. All frames of a sequence are computed at once.

Audio is (T,) float64; features are (frames, dim). A frame begins every `hop` samples and has `window` samples;
`center` puts its middle there, with zeros outside the audio.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

FRAMES_AT_ONCE = 4096
DELTA_WINDOW = 9  # frames
TOP_DB = 80.0


def frames_of(audio: np.ndarray, size: int, hop: int, center: bool = True) -> np.ndarray:
    """A view (frames, size) of the audio; with zeros around it if centred."""
    if center:
        audio = np.pad(audio, size // 2)
    if len(audio) < size:
        audio = np.pad(audio, (0, size - len(audio)))
    return np.lib.stride_tricks.sliding_window_view(audio, size)[::hop]


@lru_cache(maxsize=8)
def hann(size: int) -> np.ndarray:
    """Periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)


def power_spectra(audio: np.ndarray, window: int, hop: int, center: bool = True) -> np.ndarray:
    """|X|^2 of each frame, (frames, window // 2 + 1)."""
    frames = frames_of(audio, window, hop, center)
    parts = [
        np.abs(np.fft.rfft(frames[i : i + FRAMES_AT_ONCE] * hann(window))) ** 2
        for i in range(0, len(frames), FRAMES_AT_ONCE)
    ]
    return np.concatenate(parts)


def linear_spectra(audio: np.ndarray, window: int, hop: int, dim: int, center: bool = True) -> np.ndarray:
    """|X| of an FFT of 2 * dim samples, without the constant part: (frames, dim). Needs window <= 2 * dim."""
    frames = frames_of(audio, 2 * dim, hop, center)
    left = (2 * dim - window) // 2
    padded = np.pad(hann(window), (left, 2 * dim - window - left))
    parts = [
        np.abs(np.fft.rfft(frames[i : i + FRAMES_AT_ONCE] * padded))[:, 1:]
        for i in range(0, len(frames), FRAMES_AT_ONCE)
    ]
    return np.concatenate(parts)


def mel(frequency: np.ndarray) -> np.ndarray:
    """Hz to mel on Slaney's scale: linear below 1 kHz, logarithmic above."""
    frequency = np.asarray(frequency, np.float64)
    return np.where(
        frequency < 1000, 3 * frequency / 200, 15 + 27 * np.log(np.maximum(frequency, 1e-10) / 1000) / np.log(6.4)
    )


def mel_inverse(mels: np.ndarray) -> np.ndarray:
    """Mel to Hz."""
    return np.where(mels < 15, 200 * mels / 3, 1000 * np.exp(np.log(6.4) * (mels - 15) / 27))


@lru_cache(maxsize=8)
def mel_filters(rate: int, window: int, count: int, fmin: float, fmax: float | None) -> np.ndarray:
    """Triangular filters of equal area, (window // 2 + 1, count)."""
    low, high = mel(np.array([fmin, rate / 2 if fmax is None else fmax]))
    borders = mel_inverse(np.linspace(low, high, count + 2))
    bins = np.arange(window // 2 + 1)[:, None] * rate / window
    with np.errstate(divide="ignore", invalid="ignore"):
        rising = (bins - borders[:-2]) / (borders[1:-1] - borders[:-2])
        falling = (borders[2:] - bins) / (borders[2:] - borders[1:-1])
        filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (borders[2:] - borders[:-2])
    made: np.ndarray = np.nan_to_num(filters)
    return made


def mel_powers(
    audio: np.ndarray,
    rate: int,
    window: int,
    hop: int,
    count: int,
    fmin: float = 0.0,
    fmax: float | None = None,
    center: bool = True,
) -> np.ndarray:
    """Power in each mel filter, (frames, count)."""
    made: np.ndarray = power_spectra(audio, window, hop, center) @ mel_filters(rate, window, count, fmin, fmax)
    return made


def log_mel_filterbank(audio: np.ndarray, rate: int, window: int, hop: int, dim: int) -> np.ndarray:
    """Natural log of the mel powers, at least ln 0.001."""
    made: np.ndarray = np.log(np.maximum(1e-3, mel_powers(audio, rate, window, hop, dim)))
    return made


def log_log_mel_filterbank(audio: np.ndarray, rate: int, window: int, hop: int, dim: int) -> np.ndarray:
    """The squares of log_mel_filterbank in dB, within 80 dB of the sequence's highest."""
    db = 10 * np.log10(np.maximum(1e-10, log_mel_filterbank(audio, rate, window, hop, dim) ** 2))
    made: np.ndarray = np.maximum(db, db.max() - TOP_DB)
    return made


def db_mel_filterbank(
    audio: np.ndarray,
    rate: int,
    window: int,
    hop: int,
    dim: int,
    fmin: float = 0.0,
    fmax: float | None = None,
    min_amp: float = 1e-10,
    center: bool = True,
) -> np.ndarray:
    """20 log10 of the mel powers, at least that of `min_amp`."""
    made: np.ndarray = 20 * np.log10(np.maximum(min_amp, mel_powers(audio, rate, window, hop, dim, fmin, fmax, center)))
    return made


@lru_cache(maxsize=8)
def cosines(size: int, count: int) -> np.ndarray:
    """The first `count` vectors of the orthonormal DCT-II, (size, count)."""
    angles = np.pi * (np.arange(size)[:, None] + 0.5) * np.arange(count) / size
    matrix = np.cos(angles) * np.sqrt(2 / size)
    matrix[:, 0] = np.sqrt(1 / size)
    made: np.ndarray = matrix
    return made


def mfcc(
    audio: np.ndarray,
    rate: int,
    window: int,
    hop: int,
    dim: int,
    n_mels: int = 128,
    fmin: float = 0.0,
    fmax: float | None = None,
    center: bool = True,
) -> np.ndarray:
    """Mel cepstral coefficients; the first one is replaced by the frame's root mean square."""
    powers = mel_powers(audio, rate, window, hop, n_mels, fmin, fmax, center)
    db = 10 * np.log10(np.maximum(1e-10, powers))
    features = np.maximum(db, db.max() - TOP_DB) @ cosines(n_mels, dim)
    energy = np.mean(frames_of(audio, window, hop, center) ** 2, axis=1)
    features[:, 0] = np.sqrt(energy)
    made: np.ndarray = features
    return made


def linear_spectrogram(
    audio: np.ndarray, rate: int, window: int, hop: int, dim: int, center: bool = True
) -> np.ndarray:
    """Magnitudes at `dim` frequencies above 0."""
    return linear_spectra(audio, window, hop, dim, center)


def deltas(features: np.ndarray, order: int) -> np.ndarray:
    """Derivative over time of this order: that of a polynomial fitted to 9 frames, by Savitzky and Golay, 1964.

    The frames at both ends get the value of the outermost fit, which is constant over it. Needs 9 frames.
    """
    positions = np.arange(DELTA_WINDOW) - DELTA_WINDOW // 2
    fit = np.linalg.pinv(positions[:, None] ** np.arange(order + 1.0))[order] * np.prod(np.arange(1, order + 1))
    windows = np.lib.stride_tricks.sliding_window_view(features, DELTA_WINDOW, axis=0)
    side = DELTA_WINDOW // 2
    return np.pad(windows @ fit, ((side, side), (0, 0)), mode="edge")


FEATURES = {
    function.__name__: function
    for function in (mfcc, log_mel_filterbank, log_log_mel_filterbank, db_mel_filterbank, linear_spectrogram)
}
