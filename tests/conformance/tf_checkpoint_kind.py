"""Kind `tf_checkpoint`: TensorFlow's checkpoint files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from returnn_lite.compat.tf_checkpoint import read_checkpoint, write_checkpoint


def read_tf_checkpoint(prefix: str) -> dict[str, np.ndarray]:
    """{name: array} of all tensors; strings as bytes, bfloat16 as float32."""
    return read_checkpoint(prefix)


def write_tf_checkpoint(arrays: Mapping[str, np.ndarray], prefix: str) -> None:
    """Writes a checkpoint of these tensors."""
    write_checkpoint(prefix, arrays)
