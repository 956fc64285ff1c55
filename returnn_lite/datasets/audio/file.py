"""Reading of audio files."""

from __future__ import annotations

import io
import re
import wave

import numpy as np

from returnn_lite.errors import ConfigError


def read_audio(content: bytes, path: str) -> tuple[np.ndarray, int]:
    """(samples float64 in [-1, 1], (T,) or (T, channels); sample rate in Hz) of a file's content.

    WAV with 16 bits needs nothing else, other formats need the package soundfile. Raises ConfigError naming `path`.
    """
    try:
        import soundfile
    except ImportError:
        return _read_wav(content, path)
    try:
        samples, rate = soundfile.read(io.BytesIO(content))
    except (RuntimeError, ValueError) as exc:  # soundfile's own errors are RuntimeErrors
        text = re.sub(r"^Error opening <.*?>: ", "", str(exc))
        raise ConfigError(path, f"cannot be read as audio: {text}") from None
    return samples, int(rate)


def _read_wav(content: bytes, path: str) -> tuple[np.ndarray, int]:
    samples, rate = read_wav_samples(content, path, ': or install soundfile: pip install "returnn-lite[audio]"')
    return samples / 2.0**15, rate


def read_wav_samples(content: bytes, path: str, hint: str = "") -> tuple[np.ndarray, int]:
    """(samples as they are stored, int16 (T,) or (T, channels); sample rate in Hz) of a WAV file's content."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            if file.getsampwidth() != 2:
                raise ConfigError(path, f"must be WAV with 16 bits, but has {8 * file.getsampwidth()}{hint}")
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            channels, rate = file.getnchannels(), file.getframerate()
    except (wave.Error, EOFError) as exc:
        raise ConfigError(path, f"cannot be read as WAV: {exc}{hint}") from None
    return (samples if channels == 1 else samples.reshape(-1, channels)), rate
