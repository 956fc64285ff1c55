"""The layouts in which model files hold an LSTM, read into one: a kernel (D + H, 4H), rows for the input first, and a
bias (4H,), gates in the order a, i, f, o (cell input, input, forget, output gate)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Arrays = Mapping[str, Tensor]

# A cell's part of a name -> the forget bias that such cells add at run time, where one that does not would differ:
# None = to be left as it is, for the system whose files these are does so, too.
_CUDNN = "cudnn/params_canonical/rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell"
CELLS: dict[str, float | None] = {
    "rnn/lstm_cell": None,
    "lstm_cell": None,
    "rnn/basic_lstm_cell": None,
    "basic_lstm_cell": None,
    "rnn/lstm_fused_cell": 1.0,
    "lstm_fused_cell": 1.0,
    "rnn/lstm_block_wrapper": 1.0,
    "lstm_block_wrapper": 1.0,
    _CUDNN: 0.0,
}
CANONICAL = "cudnn/CudnnRNNParamsToCanonical:"
CELL_NAME = re.compile(f"(?P<scope>.*)/(?P<cell>{'|'.join(CELLS)})/(?P<leaf>.*)")
_OLD_LEAVES = {"kernel": "weights", "bias": "biases"}
_KEEPS_BIAS = "the net's LSTM does not add a forget bias as the file's does (1, if its options did not say otherwise)"
_ADDS_BIAS = "the net's LSTM adds its `forget_bias` (1, if its options do not say otherwise), which the file's does not"


@dataclass(frozen=True)
class Lstm:
    """An LSTM of a file.  names: the entries it is made from; forget_bias: as in `CELLS`, with 0 for "none"."""

    names: tuple[str, ...]
    kernel: Callable[[], Tensor]
    bias: Callable[[], Tensor]
    forget_bias: float | None

    def value(self, leaf: str, *, in_cell: bool, split: bool) -> Tensor | None:
        """A parameter of a cell (`kernel`, `bias`) or of a native LSTM (`W`, `W_re`, `b`; `split`: it has `W_re`)."""
        kernel = self.kernel()
        size = kernel.shape[1] // 4
        if in_cell:
            return {"kernel": lambda: swapped(kernel), "bias": lambda: swapped(self.bias())}.get(leaf, lambda: None)()
        if leaf == "b":
            added = torch.zeros(4, size)
            added[2] = self.forget_bias or 0.0
            return self.bias() + added.reshape(-1)
        if not split:
            return kernel if leaf == "W" else None
        return {"W": kernel[:-size], "W_re": kernel[-size:]}.get(leaf)

    def remark(self, *, in_cell: bool) -> str:
        """What a user should know of the forget bias; "" if nothing."""
        if in_cell:
            return _ADDS_BIAS if self.forget_bias == 0.0 else ""
        return _KEEPS_BIAS if self.forget_bias is None else ""


def swapped(array: Tensor) -> Tensor:
    """i, j, f, o <-> a, i, f, o in the last axis (j and a are the same)."""
    first, second, rest = array.split([n := array.shape[-1] // 4, n, array.shape[-1] - 2 * n], -1)
    return torch.cat([second, first, rest], -1)


def find_lstm(scope: str, free: Arrays, file: Arrays) -> Lstm | None:
    """The LSTM which the file has in this scope. free: the entries that may be used for its weights."""
    for cell, forget_bias in CELLS.items():
        kernel, bias = (_leaf(f"{scope}/{cell}", leaf, free) for leaf in ("kernel", "bias"))
        if kernel and bias:
            return _cell(kernel, bias, free, forget_bias)
    if all(f"{scope}/{CANONICAL}{i}" in free for i in range(16)):
        return _canonical([free[f"{scope}/{CANONICAL}{i}"] for i in range(16)], f"{scope}/{CANONICAL}0…15")
    return _native(scope, free, file)


def _leaf(cell: str, leaf: str, free: Arrays) -> str | None:
    names = (f"{cell}/{leaf}", f"{cell}/{_OLD_LEAVES[leaf]}")
    return next((name for name in names if name in free), None)


def _cell(kernel: str, bias: str, free: Arrays, forget_bias: float | None) -> Lstm | None:
    if free[kernel].ndim != 2 or free[kernel].shape[1] % 4:
        return None
    return Lstm((kernel, bias), lambda: swapped(free[kernel]), lambda: swapped(free[bias]), forget_bias)


def _native(scope: str, free: Arrays, file: Arrays) -> Lstm | None:
    """W, W_re, b; or W, b, where W has the rows of both."""
    w, w_re, b = (f"{scope}/{leaf}" for leaf in ("W", "W_re", "b"))
    if w not in free or b not in file or free[w].ndim != 2 or free[w].shape[1] % 4:
        return None
    if w_re in free:
        return Lstm((w, w_re, b), lambda: torch.cat([free[w], free[w_re]]), lambda: file[b], 0.0)
    fits = w_re not in file and free[w].shape[0] > free[w].shape[1] // 4
    return Lstm((w, b), lambda: free[w], lambda: file[b], 0.0) if fits else None


def _canonical(parts: list[Tensor], name: str) -> Lstm:
    """Gates i, f, j, o: 4 input matrices (H, D), 4 recurrent ones (H, H), 4 input biases, 4 recurrent biases (H,)."""
    size = parts[8].numel()
    order = (2, 0, 1, 3)

    def matrix(first: int) -> Tensor:
        return torch.cat([parts[first + i].reshape(size, -1).T for i in order], 1)

    return Lstm(
        (name,),
        lambda: torch.cat([matrix(0), matrix(4)]),
        lambda: torch.cat([parts[8 + i].flatten() + parts[12 + i].flatten() for i in order]),
        0.0,
    )
