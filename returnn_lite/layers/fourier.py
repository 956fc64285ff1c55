"""Short-time Fourier transforms: `stft`, `istft`, and of several channels and resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.spectra import WINDOW_KINDS, istft, stft, window_function
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.masked import fill_padding

SILENCE = 1e-7  # samples behind the end of a signal


def _framed_spec(x: Spec, time: Dim, feature: Dim, dtype: str) -> Spec:
    """All axes but time and features, then the new time and feature axes."""
    others = [d for i, d in enumerate(x.dims) if i not in (x.time, x.feature)]
    at = len(others)
    return Spec((*others, time, feature), dtype, time=at, feature=at + 1, loop=x.loop)


class _Signal(Layer):
    """Base of transforms of the time axis."""

    full_precision = True
    recurrent = True

    def _check(self, x: Spec) -> None:
        if x.sparse or x.time is None:
            raise self.error(f"the source must be dense with a time axis, but is {x} instead")

    def _single_channel(self, x: Tensor) -> torch.Tensor:
        """The samples, time last; a feature axis must have size 1."""
        data = x.data
        if x.spec.feature is not None:
            data = data.movedim(x.spec.feature, -1).squeeze(-1)
        time = x.spec.time or 0
        return data.movedim(time - (x.spec.feature is not None and x.spec.feature < time), -1)


class _ShortTime(_Signal):
    """Base of transforms between samples and spectra of frames."""

    def __init__(
        self, *, frame_shift: PositiveInt, frame_size: PositiveInt, fft_size: PositiveInt | None = None
    ) -> None:
        super().__init__()
        self.frame_shift = frame_shift
        self.frame_size = frame_size
        self.fft_size = fft_size or frame_size


@layer("stft")
class Stft(_ShortTime):
    """Short-time Fourier transform with a periodic Hann window.

    Shape: (B, T, 1) -> (B, T', fft_size / 2 + 1) complex64

    Frames of `frame_size` samples, `frame_shift` apart, filled with zeros up to `fft_size`; T' = ceil((T - size + 1) /
    shift).
    """

    def spec(self, x: Spec | None) -> Spec | None:
        """Frames, then frequency bins."""
        if x is None:
            return None
        self._check(x)
        if x.feature is not None and x.dim != 1:
            raise self.error(f"the source must have one channel, but is {x} instead; see `multichannel_stft_layer`")
        time = x.dims[x.time or 0].window(self.frame_size, self.frame_shift)
        return _framed_spec(x, time, self.dim("frequency", self.fft_size // 2 + 1), "complex64")

    def forward(self, x: Tensor) -> Tensor:
        """The spectrum of every frame."""
        window = window_function("hanning", self.frame_size, x.device)
        data = stft(self._single_channel(x), window, self.frame_shift, self.fft_size)
        return x.with_data(data, self.spec(x.spec))


@layer("istft")
class InverseStft(_ShortTime):
    """The signal of a short-time spectrum (the inverse of `stft`).

    Shape: (B, T, fft_size / 2 + 1) complex64 -> (B, T', 1)

    T' = (T - 1) * frame_shift + frame_size; overlapping frames are weighted so that `stft` frames give the signal back.
    """

    lets_padding_through = True

    def spec(self, x: Spec | None) -> Spec | None:
        """Samples, one channel."""
        if x is None:
            return None
        self._check(x)
        if x.dtype != "complex64" or x.dim != self.fft_size // 2 + 1:
            raise self.error(f"the source must be complex64 with {self.fft_size // 2 + 1} features, but is {x} instead")
        time = x.dims[x.time or 0] * self.frame_shift + (self.frame_size - self.frame_shift)
        return _framed_spec(x, time, self.dim("channel", 1), "float32")

    def forward(self, x: Tensor) -> Tensor:
        """Overlapping frames added."""
        order = [i for i in range(x.spec.rank) if i not in (x.spec.time, x.spec.feature)]
        spectrum = x.data.permute((*order, x.spec.time or 0, x.spec.feature or 0))
        window = window_function("hanning", self.frame_size, x.device)
        signal = istft(spectrum, window, self.frame_shift, self.fft_size)
        return x.with_data(signal.unsqueeze(-1), self.spec(x.spec))


class _ChannelSpectra(_Signal):
    """Base of transforms of every channel, in one or more resolutions: frames of these sizes, each for its FFT."""

    def __init__(
        self,
        frame_shift: int,
        resolutions: Sequence[tuple[int, int]],
        window: str | None,
        use_rfft: bool,
        channels: int,
        pad_last_frame: bool,
    ) -> None:
        super().__init__()
        self.frame_shift, self.resolutions = frame_shift, resolutions
        self.window, self.use_rfft = str(window), use_rfft
        self.channels, self.pad_last_frame = channels, pad_last_frame
        if self.window not in WINDOW_KINDS:
            hint = did_you_mean(self.window, WINDOW_KINDS)
            raise self.error(f"`window` must be one of {', '.join(WINDOW_KINDS)}, but is {window!r} instead{hint}")

    def spec(self, x: Spec | None) -> Spec | None:
        """Frames, then the frequency bins of all channels, of all resolutions."""
        if x is None:
            return None
        self._check(x)
        if (x.dim if x.feature is not None else 1) != self.channels:
            raise self.error(
                f"`nr_of_channels` must be the number of features of the source {x}, but is {self.channels}"
            )
        bins = sum(size // 2 + 1 if self.use_rfft else size for _, size in self.resolutions)
        dim, first = x.dims[x.time or 0], self.resolutions[0][0]
        if self.pad_last_frame:
            time = (dim - first).ceildiv(self.frame_shift) + 1
        else:
            time = dim.window(first, self.frame_shift)
        return _framed_spec(x, time, self.dim("frequency", bins * self.channels), "complex64")

    def forward(self, x: Tensor) -> Tensor:
        """The spectra of every frame."""
        spec = self.spec(x.spec)
        if self.pad_last_frame:
            x = x.with_data(fill_padding(x, 0.0))
        data = x.data if x.spec.feature is not None else x.data.unsqueeze(-1)
        feature = x.spec.rank if x.spec.feature is None else x.spec.feature
        order = [i for i in range(x.spec.rank) if i not in (x.spec.time, feature)]
        data = data.permute((*order, feature, x.spec.time or 0))
        first = self.resolutions[0][0]
        if self.pad_last_frame:
            steps = max(-(-(data.shape[-1] - first) // self.frame_shift), 0)
            data = F.pad(data, (0, max(steps * self.frame_shift + first - data.shape[-1], 0)))
        frames = max(-(-(data.shape[-1] - first + 1) // self.frame_shift), 0)
        parts = [self._spectra(data, size, fft, size - first)[..., :frames, :] for size, fft in self.resolutions]
        return x.with_data(torch.cat(parts, -1), spec)

    def _spectra(self, data: torch.Tensor, size: int, fft_size: int, more: int) -> torch.Tensor:
        """(…, C, T) -> (…, T', C * bins); the signal is made `more` samples longer."""
        data = F.pad(data, (0, max(more, 0)), value=SILENCE)
        window = window_function(self.window, size, data.device)
        spectra = stft(data, window, self.frame_shift, fft_size, one_sided=self.use_rfft)
        return spectra.movedim(-3, -2).flatten(-2)


@layer("multichannel_stft_layer")
class MultichannelStft(_ChannelSpectra):
    """`stft` of every channel, the spectra one after another.

    Shape: (B, T, C) -> (B, T', C * (fft_size / 2 + 1)) complex64

    `window`: "hanning", "blackman", "ones" or "None"; `use_rfft` False: all fft_size bins; `pad_last_frame`: zeros
    complete the last frame, T' = ceil((T - size) / shift) + 1.
    """

    def __init__(
        self,
        *,
        frame_shift: PositiveInt,
        frame_size: PositiveInt,
        fft_size: PositiveInt,
        window: str | None = "hanning",
        use_rfft: bool = True,
        nr_of_channels: PositiveInt = 1,
        pad_last_frame: bool = False,
    ) -> None:
        super().__init__(frame_shift, [(frame_size, fft_size)], window, use_rfft, nr_of_channels, pad_last_frame)


@layer("multichannel_multiresolution_stft_layer")
class MultichannelMultiresolutionStft(_ChannelSpectra):
    """`multichannel_stft_layer` in several resolutions, one after another, all with the frames of the first one.

    Shape: (B, T, C) -> (B, T', C * sum of (fft_size / 2 + 1)) complex64

    `frame_sizes`, `fft_sizes`: one of each per resolution. For frames larger than the first ones, the signal goes on
    with 1e-7. The other options are those of `multichannel_stft_layer`.
    """

    lets_padding_through = True

    def __init__(
        self,
        *,
        frame_shift: PositiveInt,
        frame_sizes: Sequence[PositiveInt],
        fft_sizes: Sequence[PositiveInt],
        window: str | None = "hanning",
        use_rfft: bool = True,
        nr_of_channels: PositiveInt = 1,
        pad_last_frame: bool = False,
    ) -> None:
        if not frame_sizes or len(frame_sizes) != len(fft_sizes):
            text = "`frame_sizes` and `fft_sizes` must have an entry per resolution"
            raise ConfigError("", f"{text}, but are {frame_sizes!r} and {fft_sizes!r}")
        pairs = list(zip(frame_sizes, fft_sizes, strict=True))
        super().__init__(frame_shift, pairs, window, use_rfft, nr_of_channels, pad_last_frame)
