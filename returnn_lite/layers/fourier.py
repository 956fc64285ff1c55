"""Short-time Fourier transforms: `stft`, `istft`, `multichannel_stft_layer`."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.errors import did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.spectra import WINDOW_KINDS, istft, stft, window_function
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.masked import fill_padding


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


@layer("stft")
class Stft(_Signal):
    """Short-time Fourier transform with a periodic Hann window.

    Shape: (B, T, 1) -> (B, T', fft_size / 2 + 1) complex64

    Frames of `frame_size` samples, `frame_shift` apart, filled with zeros up to `fft_size`; T' = ceil((T - size + 1) /
    shift).
    """

    def __init__(
        self, *, frame_shift: PositiveInt, frame_size: PositiveInt, fft_size: PositiveInt | None = None
    ) -> None:
        super().__init__()
        self.frame_shift = frame_shift
        self.frame_size = frame_size
        self.fft_size = fft_size or frame_size

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
class InverseStft(_Signal):
    """The signal of a short-time spectrum (the inverse of `stft`).

    Shape: (B, T, fft_size / 2 + 1) complex64 -> (B, T', 1)

    T' = (T - 1) * frame_shift + frame_size; overlapping frames are weighted so that `stft` frames give the signal back.
    """

    lets_padding_through = True

    def __init__(
        self, *, frame_shift: PositiveInt, frame_size: PositiveInt, fft_size: PositiveInt | None = None
    ) -> None:
        super().__init__()
        self.frame_shift = frame_shift
        self.frame_size = frame_size
        self.fft_size = fft_size or frame_size

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


@layer("multichannel_stft_layer")
class MultichannelStft(_Signal):
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
        super().__init__()
        self.frame_shift = frame_shift
        self.frame_size = frame_size
        self.fft_size = fft_size
        self.window = str(window)
        self.use_rfft = use_rfft
        self.channels = nr_of_channels
        self.pad_last_frame = pad_last_frame
        if self.window not in WINDOW_KINDS:
            hint = did_you_mean(self.window, WINDOW_KINDS)
            raise self.error(f"`window` must be one of {', '.join(WINDOW_KINDS)}, but is {window!r} instead{hint}")

    def spec(self, x: Spec | None) -> Spec | None:
        """Frames, then the frequency bins of all channels."""
        if x is None:
            return None
        self._check(x)
        if (x.dim if x.feature is not None else 1) != self.channels:
            raise self.error(
                f"`nr_of_channels` must be the number of features of the source {x}, but is {self.channels}"
            )
        bins = self.fft_size // 2 + 1 if self.use_rfft else self.fft_size
        dim = x.dims[x.time or 0]
        time = (
            (dim - self.frame_size).ceildiv(self.frame_shift) + 1
            if self.pad_last_frame
            else dim.window(self.frame_size, self.frame_shift)
        )
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
        if self.pad_last_frame:
            steps = max(-(-(data.shape[-1] - self.frame_size) // self.frame_shift), 0)
            data = F.pad(data, (0, max(steps * self.frame_shift + self.frame_size - data.shape[-1], 0)))
        window = window_function(self.window, self.frame_size, x.device)
        spectra = stft(data, window, self.frame_shift, self.fft_size, one_sided=self.use_rfft)
        return x.with_data(spectra.movedim(-3, -2).flatten(-2), spec)
