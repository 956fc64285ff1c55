"""From audio to normalised features, as the option `audio` of datasets says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.audio.augment import RandomPermute
from returnn_lite.datasets.audio.features import DELTA_WINDOW, FEATURES, deltas
from returnn_lite.errors import ConfigError, did_you_mean

PER_SEQ = "per_seq"
MIN_STD = 0.01  # of a sequence's own deviation
RAW = "raw"


class AudioFeatures:
    """Features of audio, and their normalisation.

    `window_len` and `step_len` in seconds; `with_delta` how many derivatives are appended; `norm_mean` and
    `norm_std_dev` a number, a file of numbers, an array, or "per_seq"; `join_frames` so many frames as one;
    `random_permute` random changes of the audio; `pre_process(audio=, sample_rate=, random_state=)` and
    `post_process(data, seq_name=)` are functions. Call it with audio (T,) in [-1, 1].
    """

    def __init__(
        self,
        *,
        window_len: float = 0.025,
        step_len: float = 0.010,
        num_feature_filters: int | None = None,
        with_delta: bool | int = False,
        norm_mean: ConfigValue = None,
        norm_std_dev: ConfigValue = None,
        features: str | Callable[..., np.ndarray] = "mfcc",
        feature_options: ConfigDict | None = None,
        random_permute: ConfigValue = None,
        raw_ogg_opts: ConfigValue = None,
        pre_process: Callable[..., np.ndarray] | None = None,
        post_process: Callable[..., np.ndarray] | None = None,
        sample_rate: int | None = None,
        num_channels: int | None = None,
        peak_normalization: bool = True,
        preemphasis: float | None = None,
        join_frames: int | None = None,
        path: str = "audio",
    ):
        self.path, self.window_len, self.step_len = path, window_len, step_len
        self.features, self.options = features, dict(feature_options or {})
        self._check_features()
        self.filters = num_feature_filters or (1 if features == RAW else 40)
        self.with_delta, self.join = int(with_delta), join_frames or 1
        if num_channels is not None and features != RAW:
            raise ConfigError(f"{path}: num_channels", 'is possible with features "raw" only')
        self.num_channels, self.sample_rate = num_channels, sample_rate
        self.peak_normalization, self.preemphasis = peak_normalization, preemphasis
        self.pre_process, self.post_process = pre_process, post_process
        self.random_permute = RandomPermute.parse(random_permute, f"{path}: random_permute")
        self.dim = self.filters * (self.with_delta + 1) * self.join
        self.mean = self._norm(norm_mean, "norm_mean")
        self.std = self._norm(norm_std_dev, "norm_std_dev")

    @classmethod
    def parse(cls, value: ConfigValue, path: str) -> AudioFeatures | None:
        """From the option's dict; None without audio. Raises ConfigError for unknown options."""
        if value is None or isinstance(value, AudioFeatures):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(path, f"must be a dict or None, but is {value!r} instead")
        known = [p.name for p in inspect.signature(cls.__init__).parameters.values() if p.name not in ("self", "path")]
        for name in value:
            if name not in known:
                hint = f"{did_you_mean(str(name), known)}; its options are: {', '.join(known)}"
                raise ConfigError(f'{path}["{name}"]', f"unknown option{hint}")
        return cls(**value, path=path)

    def _check_features(self) -> None:
        name, path = self.features, f"{self.path}: features"
        if callable(name) or name == RAW:
            return
        if name in ("raw_ogg", "f0"):
            raise ConfigError(path, f'"{name}" is not supported; known: {", ".join([RAW, *FEATURES])}, or a function')
        if name not in FEATURES:
            hint = did_you_mean(str(name), [RAW, *FEATURES]) or f"; known: {', '.join([RAW, *FEATURES])}"
            raise ConfigError(path, f"non-supported feature type {name!r}{hint}")
        known = list(inspect.signature(FEATURES[str(name)]).parameters)[5:]
        for option in self.options:
            if option not in known:
                raise ConfigError(f'{self.path}: feature_options["{option}"]', f"unknown option of {name}")

    def _norm(self, value: ConfigValue, option: str) -> Any:
        """A number, "per_seq", or a vector of all dims."""
        if value is None or isinstance(value, int | float) or (isinstance(value, str) and value == PER_SEQ):
            return value
        path = f"{self.path}: {option}"
        if isinstance(value, str):
            try:
                value = np.loadtxt(value)
            except (OSError, ValueError) as exc:
                raise ConfigError(path, f"{value} cannot be read as numbers: {exc}") from None
        vector = np.asarray(value, "float32")
        if vector.shape != (self.dim,):
            raise ConfigError(path, f"must have {self.dim} numbers, but has the shape {vector.shape}")
        return vector

    @property
    def shape(self) -> list[int | None]:
        """Shape of a frame."""
        return [self.dim] if self.num_channels is None else [self.num_channels, self.dim]

    # --- the pipeline ---

    def __call__(self, audio: np.ndarray, sample_rate: int, *, seq_name: str, rng: np.random.RandomState) -> np.ndarray:
        """(T,) or (T, channels) -> (frames, dim) or (frames, channels, dim), float32. Raises ConfigError."""
        if self.sample_rate is not None and self.sample_rate != sample_rate:
            raise ConfigError(
                f"{self.path}: sample_rate",
                f"must be that of the audio, {sample_rate} Hz, but is {self.sample_rate}: rates are not converted,"
                " so convert the files, or resample them by `pre_process`, without this option",
            )
        if not len(audio):
            raise ConfigError(self.path, "the audio has no samples")
        if self.pre_process is None or self.random_permute is not None:
            self._check_channels(audio)
        audio = self._changed(audio, sample_rate, rng)
        self._check_channels(audio)
        if self.num_channels is not None and audio.ndim == 1:
            audio = audio[:, None]
        features = self._features(audio, sample_rate, rng)
        if not np.isfinite(features).all():
            raise ConfigError(self.path, "the features hold NaN or infinite numbers")
        features = self._normalised(self._with_deltas(features))
        features = self._joined(features)
        return features if self.post_process is None else np.asarray(self.post_process(features, seq_name=seq_name))

    def _check_channels(self, audio: np.ndarray) -> None:
        channels = 1 if audio.ndim == 1 else audio.shape[1]
        if audio.ndim <= 1 + (self.num_channels is not None) and channels == (self.num_channels or 1):
            return
        text = f"must be that of the audio, {channels}, but is {self.num_channels}"
        mixed = '"pre_process": lambda audio, **_: audio.mean(1) mixes them down' if audio.ndim == 2 else ""
        raise ConfigError(f"{self.path}: num_channels", f"{text}; {mixed or 'it must be (time,) or (time, channels)'}")

    def _changed(self, audio: np.ndarray, rate: int, rng: np.random.RandomState) -> np.ndarray:
        """With preemphasis, peak normalisation, random changes."""
        if self.preemphasis:
            audio = np.concatenate([audio[:1], audio[1:] - self.preemphasis * audio[:-1]])
        if self.peak_normalization:
            audio = audio / (np.abs(audio).max() or 1.0)
        if self.random_permute is not None:
            audio = self.random_permute(audio, rng)
        if self.pre_process is not None:
            audio = self.pre_process(audio=audio, sample_rate=rate, random_state=rng)
        return audio

    def _features(self, audio: np.ndarray, rate: int, rng: np.random.RandomState) -> np.ndarray:
        """(frames, filters) float32."""
        if self.features == RAW:
            return audio.astype("float32")[..., None]
        if callable(self.features):
            found = self.features(
                random_state=rng,
                audio=audio,
                sample_rate=rate,
                window_len=self.window_len,
                step_len=self.step_len,
                num_feature_filters=self.filters,
                **self.options,
            )
            return np.asarray(found, "float32")
        window, hop = int(self.window_len * rate), int(self.step_len * rate)
        if self.features == "linear_spectrogram" and (2 * self.filters < window or self.filters % 2):
            raise ConfigError(
                f"{self.path}: num_feature_filters", f"must be even and at least {window // 2}, but is {self.filters}"
            )
        return FEATURES[str(self.features)](audio, rate, window, hop, self.filters, **self.options).astype("float32")

    def _with_deltas(self, features: np.ndarray) -> np.ndarray:
        if not self.with_delta:
            return features
        if len(features) < DELTA_WINDOW:
            raise ConfigError(f"{self.path}: with_delta", f"needs {DELTA_WINDOW} frames, but got {len(features)}")
        orders = range(1, self.with_delta + 1)
        return np.concatenate([features, *(deltas(features, i) for i in orders)], 1).astype("float32")

    def _normalised(self, features: np.ndarray) -> np.ndarray:
        if self.mean is not None:
            per_seq = isinstance(self.mean, str)
            features = features - (features.mean(0, keepdims=True) if per_seq else self._fitting(self.mean, features))
        if self.std is not None:
            per_seq = isinstance(self.std, str)
            own = np.maximum(features.std(0, keepdims=True), MIN_STD) if per_seq else self._fitting(self.std, features)
            features = features / own
        return features.astype("float32", copy=False)

    def _fitting(self, norm: ConfigValue, features: np.ndarray) -> Any:
        if isinstance(norm, np.ndarray) and norm.shape[0] != features.shape[-1]:
            raise ConfigError(f"{self.path}: join_frames", "is possible with norms that are numbers or per_seq only")
        return norm

    def _joined(self, features: np.ndarray) -> np.ndarray:
        """So many frames as one; the last one is repeated at the end."""
        if self.join == 1:
            return features
        missing = -len(features) % self.join
        features = np.concatenate([features, np.repeat(features[-1:], missing, axis=0)])
        joined = features.reshape(len(features) // self.join, self.join, *features.shape[1:])
        return np.concatenate([joined[:, i] for i in range(self.join)], -1)
