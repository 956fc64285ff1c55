"""Named axes: `Dim`, `Spec` (axes without data), `Tensor` (with data and lengths), axis texts, alignment, masks."""

from returnn_lite.tensor.deferred import Deferred
from returnn_lite.tensor.dim import Dim, batch_dim, single_step_dim
from returnn_lite.tensor.lengths import Lengths
from returnn_lite.tensor.spec import AUTO, Spec
from returnn_lite.tensor.tensor import Beam, PreActivation, Tensor, latest_beam, to_beam

__all__ = [
    "AUTO", "Beam", "Deferred", "Dim", "Lengths", "PreActivation", "Spec", "Tensor", "batch_dim", "latest_beam",
    "single_step_dim", "to_beam",
]  # fmt: skip
