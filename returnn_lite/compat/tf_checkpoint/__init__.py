"""TensorFlow's checkpoint files (version 2) without TensorFlow: the format, and its registration with the engine."""

from returnn_lite.compat.tf_checkpoint.reader import Bundle, read_checkpoint
from returnn_lite.compat.tf_checkpoint.writer import write_checkpoint, write_with_companions

__all__ = ["Bundle", "read_checkpoint", "write_checkpoint", "write_with_companions"]
