"""Recurrent units as plain functions of parameters, inputs and states; they know nothing of layers."""

from returnn_lite.rec.cells.base import Cell, ParamSpec, State, Weights
from returnn_lite.rec.cells.lookup import UNITS, make_cell, resolve_unit

__all__ = ["UNITS", "Cell", "ParamSpec", "State", "Weights", "make_cell", "resolve_unit"]
