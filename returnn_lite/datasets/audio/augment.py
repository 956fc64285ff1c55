"""Random changes of audio: loudness, speed, pitch."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean

FFT_SIZE, HOP = 2048, 512
PASSBAND, ZERO_CROSSINGS, BETA = 0.95, 48, 12.0  # of the resampling filter, with a Kaiser window


@dataclass(frozen=True)
class RandomPermute:
    """The options of `random_permute`: ranges of the changes, and how often they are made."""

    rnd_scale_lower: float = 0.8
    rnd_scale_upper: float = 1.0
    rnd_zoom_switch: float = 0.2
    rnd_zoom_lower: float = 0.9
    rnd_zoom_upper: float = 1.1
    rnd_zoom_order: int = 3
    rnd_stretch_switch: float = 0.2
    rnd_stretch_lower: float = 0.9
    rnd_stretch_upper: float = 1.2
    rnd_pitch_switch: float = 0.2
    rnd_pitch_lower: float = -1.0
    rnd_pitch_upper: float = 1.0

    @classmethod
    def parse(cls, value: ConfigValue, path: str) -> RandomPermute | None:
        """From True or a dict; None for anything empty. Raises ConfigError for unknown options."""
        if not value:
            return None
        if value is True:
            return cls()
        if not isinstance(value, Mapping):
            raise ConfigError(path, f"must be True or a dict, but is {value!r} instead")
        known = [f.name for f in fields(cls)]
        for name in value:
            if name not in known:
                raise ConfigError(f'{path}["{name}"]', f"unknown option{did_you_mean(str(name), known)}")
        return cls(**value)

    def __call__(self, audio: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """The changed audio, (T,) -> (T',). The draws and their order are those of the reference."""
        audio = audio * rng.uniform(self.rnd_scale_lower, self.rnd_scale_upper)
        if rng.uniform(0.0, 1.0) < self.rnd_zoom_switch:
            factor = rng.uniform(self.rnd_zoom_lower, self.rnd_zoom_upper)
            audio = _scipy("ndimage").zoom(audio, factor, order=self.rnd_zoom_order)
        if rng.uniform(0.0, 1.0) < self.rnd_stretch_switch:
            audio = stretch(audio, rng.uniform(self.rnd_stretch_lower, self.rnd_stretch_upper))
        if rng.uniform(0.0, 1.0) < self.rnd_pitch_switch:
            audio = shift_pitch(audio, rng.uniform(self.rnd_pitch_lower, self.rnd_pitch_upper))
        return audio


def stretch(audio: np.ndarray, rate: float) -> np.ndarray:
    """The same sounds `rate` times as fast: phase vocoder. Flanagan & Golden, 1966."""
    length = round(len(audio) / rate)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_SIZE) / FFT_SIZE)
    padded = np.pad(audio, FFT_SIZE // 2)
    spectra = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::HOP] * window)
    steps = np.arange(0, len(spectra), rate)
    below = steps.astype(int)
    spectra = np.pad(spectra, ((0, 2), (0, 0)))  # silence follows
    part = (steps - below)[:, None]
    magnitudes = (1 - part) * np.abs(spectra[below]) + part * np.abs(spectra[below + 1])
    advance = np.linspace(0, np.pi * HOP, FFT_SIZE // 2 + 1)
    turned = np.angle(spectra[below + 1]) - np.angle(spectra[below]) - advance
    turned -= 2 * np.pi * np.round(turned / (2 * np.pi))
    phases = np.angle(spectra[0]) + np.concatenate([np.zeros((1, len(advance))), np.cumsum(advance + turned, 0)[:-1]])
    return _overlapped(np.fft.irfft(magnitudes * np.exp(1j * phases)) * window, window, length)


def _overlapped(frames: np.ndarray, window: np.ndarray, length: int) -> np.ndarray:
    """The audio of overlapping windowed frames."""
    total = FFT_SIZE + HOP * (len(frames) - 1)
    audio, weight = np.zeros(total), np.zeros(total)
    for i, frame in enumerate(frames):
        audio[i * HOP : i * HOP + FFT_SIZE] += frame
        weight[i * HOP : i * HOP + FFT_SIZE] += window**2
    audio = (audio / np.where(weight > 1e-10, weight, 1))[FFT_SIZE // 2 :][:length]
    return np.pad(audio, (0, length - len(audio)))


def shift_pitch(audio: np.ndarray, semitones: float) -> np.ndarray:
    """Higher by so many semitones, equally long."""
    rate = 2.0 ** (-semitones / 12)
    resampled = resample(stretch(audio, rate), rate)
    return np.pad(resampled[: len(audio)], (0, max(0, len(audio) - len(resampled))))


def resample(audio: np.ndarray, ratio: float) -> np.ndarray:
    """`ratio` times as many samples of the same sound: by the package soxr if it is there, else by a windowed sinc."""
    try:
        soxr = importlib.import_module("soxr")
    except ImportError:
        return sinc_resample(audio, ratio)
    found: np.ndarray = soxr.resample(audio, 1.0, ratio, quality="HQ")
    length = math.ceil(len(audio) * ratio)
    return np.pad(found[:length], (0, max(0, length - len(found))))


def sinc_resample(audio: np.ndarray, ratio: float) -> np.ndarray:
    """Sample n stands at n / ratio between the given ones; what is above 95% of the lower Nyquist frequency is cut."""
    cutoff = PASSBAND * min(ratio, 1.0)
    reach = math.ceil(ZERO_CROSSINGS / cutoff)
    times = np.arange(math.ceil(len(audio) * ratio)) / ratio
    first = np.floor(times).astype(int) - reach + 1
    offsets = first[:, None] + np.arange(2 * reach) - times[:, None]  # (N, 2 * reach) samples
    weights = cutoff * np.sinc(cutoff * offsets) * np.i0(BETA * np.sqrt(np.maximum(1 - (offsets / reach) ** 2, 0)))
    near = np.lib.stride_tricks.sliding_window_view(np.pad(audio, reach + 1), 2 * reach)[first + reach + 1]
    found: np.ndarray = (near * weights).sum(1) / np.i0(BETA)
    return found


def _scipy(module: str) -> Any:
    try:
        return importlib.import_module(f"scipy.{module}")
    except ImportError:
        raise ConfigError("random_permute", 'needs the package scipy: pip install "returnn-lite[audio]"') from None
