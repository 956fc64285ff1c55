"""Fixed transforms of the feature axis: `dct`, `mel_filterbank`, complex numbers as features, `tile_features`."""

from __future__ import annotations

import torch

from returnn_lite.config.option_types import NaturalFloat, PositiveFloat, PositiveInt
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.spectra import dct_matrix, mel_matrix
from returnn_lite.tensor import Spec, Tensor


class _Features(Layer):
    """Base of layers that transform each feature vector by itself."""

    full_precision = True

    def _features(self, x: Spec, dtype: str = "float32") -> int:
        """Number of features. Raises ConfigError for sources that are no dense vectors of this dtype."""
        if x.sparse or x.feature is None or x.dim is None or x.dtype != dtype:
            raise self.error(f"the source must be dense {dtype} with features, but is {x} instead")
        return x.dim

    @staticmethod
    def _last(x: Tensor) -> torch.Tensor:
        return x.data.movedim(x.spec.feature or 0, -1)

    def _made(self, x: Tensor, data: torch.Tensor) -> Tensor:
        """The result, its features (last in `data`) back in their place."""
        return x.with_data(data.movedim(-1, x.spec.feature or 0), self.spec(x.spec))


@layer("dct")
class Dct(_Features):
    """Discrete cosine transform (type 2, or its inverse up to a factor, type 3) of the features.

    Shape: (B, T, F) -> the same

    y_k = 2 sum_n x_n cos(pi k (2 n + 1) / (2 F)); `norm` "ortho": an orthonormal transform.
    """

    recurrent = True

    def __init__(self, *, type: int = 2, norm: str | None = None) -> None:  # noqa: A002 - the config word
        super().__init__()
        if type not in (2, 3):
            raise self.error(f"`type` must be 2 or 3, but is {type} instead")
        if norm not in (None, "ortho"):
            raise self.error(f'`norm` must be None or "ortho", but is {norm!r} instead')
        self.kind = type
        self.ortho = norm == "ortho"

    matrix: torch.Tensor

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """The matrix."""
        matrix = dct_matrix(self._features(sources[0]), self.ortho, self.kind)
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The transformed features."""
        return self._made(x, self._last(x) @ self.matrix.to(x.device))


@layer("mel_filterbank")
class MelFilterbank(_Features):
    """Spectrum to mel bands: y = x M with triangular filters.  Shape: (B, T, fft_size / 2 + 1) -> (B, T, nr_of_filters)

    `sampling_rate`, `f_min` (0 by default) and `f_max` (half the rate) in Hz.
    """

    matrix: torch.Tensor

    def __init__(
        self,
        *,
        sampling_rate: PositiveInt = 16000,
        fft_size: PositiveInt = 1024,
        nr_of_filters: PositiveInt = 80,
        f_min: NaturalFloat | None = None,
        f_max: PositiveFloat | None = None,
    ) -> None:
        super().__init__()
        self.filters = nr_of_filters
        band = (f_min or 0.0, sampling_rate / 2.0 if f_max is None else f_max)
        matrix = mel_matrix(fft_size // 2 + 1, nr_of_filters, sampling_rate, fft_size, *band)
        self.register_buffer("matrix", matrix, persistent=False)

    def spec(self, x: Spec | None) -> Spec | None:
        """The source with mel bands as features."""
        if x is None:
            return None
        if self._features(x) != self.matrix.shape[0]:
            raise self.error(
                f"`fft_size` / 2 + 1 must be the number of features {x.dim}, but is {self.matrix.shape[0]} instead"
            )
        return x.with_feature(self.feature_dim(self.filters, x))

    def forward(self, x: Tensor) -> Tensor:
        """The bands."""
        return self._made(x, self._last(x) @ self.matrix.to(x.device))


@layer("alternating_real_to_complex")
class AlternatingRealToComplex(_Features):
    """Neighbouring features as real and imaginary part.  Shape: (B, T, 2 F) -> (B, T, F) complex64"""

    def spec(self, x: Spec | None) -> Spec | None:
        """Half of the features."""
        if x is None:
            return None
        if self._features(x) % 2:
            raise self.error(f"the number of features must be even, but is {x.dim} instead")
        return x.with_dtype("complex64").with_feature(x.dims[x.feature or 0] // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Complex numbers."""
        return self._made(x, torch.view_as_complex(self._last(x).unflatten(-1, (-1, 2)).contiguous()))


@layer("complex_to_alternating_real")
class ComplexToAlternatingReal(_Features):
    """Real and imaginary parts as neighbouring features.  Shape: (B, T, F) complex64 -> (B, T, 2 F)"""

    def spec(self, x: Spec | None) -> Spec | None:
        """Twice the features."""
        if x is None:
            return None
        self._features(x, "complex64")
        return x.with_dtype("float32").with_feature(x.dims[x.feature or 0] * 2)

    def forward(self, x: Tensor) -> Tensor:
        """Real numbers."""
        return self._made(x, torch.view_as_real(self._last(x).resolve_conj()).flatten(-2))


@layer("tile_features")
class TileFeatures(_Features):
    """The feature vector `repetitions` times in a row.  Shape: (B, T, F) -> (B, T, F * repetitions)"""

    def __init__(self, *, repetitions: PositiveInt = 1) -> None:
        super().__init__()
        self.repetitions = repetitions

    def spec(self, x: Spec | None) -> Spec | None:
        """More features."""
        if x is None:
            return None
        if x.sparse or x.feature is None:
            raise self.error(f"the source must be dense with features, but is {x} instead")
        return x.with_feature(x.dims[x.feature] * self.repetitions)

    def forward(self, x: Tensor) -> Tensor:
        """The repeated features."""
        return x.with_data(torch.cat([x.data] * self.repetitions, x.spec.feature or 0), self.spec(x.spec))
