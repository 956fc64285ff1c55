"""Registers the checkpoint formats of other programs with the engine, when it is imported."""

from returnn_lite.compat.tf_checkpoint import read_checkpoint, write_with_companions
from returnn_lite.engine.checkpoints.formats import Format, register

register(Format("tf", ".index", read_checkpoint, write_with_companions))
