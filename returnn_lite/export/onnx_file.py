"""Exported programs as ONNX models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch.export import ExportedProgram

from returnn_lite.errors import ConfigError
from returnn_lite.export.portable import LSTM, RNN_TANH
from returnn_lite.export.ports import Port
from returnn_lite.export.program import Arrays, quiet, reason

MISSING = 'ONNX needs the extra "export": pip install "returnn-lite[export]" (there is no {})'
ONNX: TypeAlias = Any  # Any: values, operators and models of onnxscript, which may be missing


def check_packages() -> None:
    """ConfigError if a package is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as exc:
        raise ConfigError("export_formats", MISSING.format(exc.name)) from None


def onnx_model(program: ExportedProgram, inputs: Sequence[Port], outputs: Sequence[Port]) -> bytes:
    """The file of a program. ConfigError for a program that torch cannot translate."""
    try:
        with quiet(), torch.no_grad():
            made = torch.onnx.export(
                program,
                input_names=[port.name for port in inputs],
                output_names=[port.name for port in outputs],
                dynamo=True,
                custom_translation_table=_translations(),
                verbose=False,
            )
    except Exception as exc:
        raise ConfigError("export", f"cannot be translated to ONNX: {reason(exc.__cause__ or exc)}") from exc
    if made is None:
        raise ConfigError("export", "torch gives no ONNX model")
    name_axes(made.model.graph.inputs, inputs)
    name_axes(made.model.graph.outputs, outputs)
    found: bytes = made.model_proto.SerializeToString()
    return found


def name_axes(values: Sequence[ONNX], ports: Sequence[Port]) -> None:
    """Gives the values the names of the ports, and their axes."""
    import onnxscript

    for value, port in zip(values, ports, strict=True):
        value.name = port.name
        value.shape = onnxscript.ir.Shape(port.axes)


class Session:
    """A model in onnxruntime."""

    def __init__(self, model: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as exc:
            raise ConfigError("export", f"onnxruntime cannot read the model: {reason(exc)}") from exc

    def __call__(self, inputs: Arrays) -> Arrays:
        """The outputs by name."""
        wanted = [node.name for node in self.session.get_inputs()]
        found = self.session.run(None, {name: inputs[name].numpy() for name in wanted})
        names = [node.name for node in self.session.get_outputs()]
        return {name: torch.as_tensor(x) for name, x in zip(names, found, strict=True)}


# --- recurrent layers -------------------------------------------------------------------------------------------------


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What the calls of `portable` are in ONNX."""
    import onnxscript

    op: ONNX = onnxscript.opset18

    def lstm(
        x: ONNX, h: ONNX, c: ONNX, params: Sequence[ONNX], has_biases: bool, layers: int, both: bool, batch_first: bool
    ) -> tuple[ONNX, ...]:
        def layer(x: ONNX, weights: tuple[ONNX, ...], states: Sequence[ONNX], **options: Any) -> tuple[ONNX, ...]:
            out: tuple[ONNX, ...] = op.LSTM(x, *weights, None, *states, **options)
            return out

        return _recurrent(op, layer, x, [h, c], params, has_biases, layers, both, batch_first, (0, 3, 1, 2))

    def rnn_tanh(
        x: ONNX, h: ONNX, params: Sequence[ONNX], has_biases: bool, layers: int, both: bool, batch_first: bool
    ) -> tuple[ONNX, ...]:
        def layer(x: ONNX, weights: tuple[ONNX, ...], states: Sequence[ONNX], **options: Any) -> tuple[ONNX, ...]:
            out: tuple[ONNX, ...] = op.RNN(x, *weights, None, *states, activations=["Tanh"] * (1 + both), **options)
            return out

        return _recurrent(op, layer, x, [h], params, has_biases, layers, both, batch_first, (0,))

    return {LSTM: lstm, RNN_TANH: rnn_tanh}


def _recurrent(
    op: ONNX,
    layer: Callable[..., tuple[ONNX, ...]],
    x: ONNX,
    states: Sequence[ONNX],
    params: Sequence[ONNX],
    has_biases: bool,
    layers: int,
    both: bool,
    batch_first: bool,
    order: Sequence[int],
) -> tuple[ONNX, ...]:
    """Layers one above the other; `order`: which of torch's gates stands where in ONNX."""
    directions, each = 1 + both, 4 if has_biases else 2
    size = int(params[1].shape[1])
    x = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x
    last: list[list[ONNX]] = [[] for _ in states]
    for i in range(layers):
        own = [params[each * (directions * i + d) :][:each] for d in range(directions)]
        first = [op.Slice(s, [directions * i], [directions * (i + 1)], [0]) for s in states]
        weights = _weights(op, own, order)
        y, *ends = layer(x, weights, first, hidden_size=size, direction="bidirectional" if both else "forward")
        x = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1])  # (T, directions, B, H) -> (T, B, …)
        for of_state, end in zip(last, ends, strict=True):
            of_state.append(end)
    x = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x
    return x, *(op.Concat(*ends, axis=0) for ends in last)


def _weights(op: ONNX, params: Sequence[Sequence[ONNX]], order: Sequence[int]) -> tuple[ONNX, ...]:
    """W, R, B of ONNX from the weights of each direction."""

    def ordered(w: ONNX) -> ONNX:
        if len(order) == 1:
            return w
        gates = op.Split(w, num_outputs=len(order), axis=0)
        return op.Concat(*(gates[i] for i in order), axis=0)

    rows = [[ordered(w) for w in of_direction] for of_direction in params]
    found = [op.Concat(*(op.Unsqueeze(of[i], [0]) for of in rows), axis=0) for i in (0, 1)]
    if len(rows[0]) == 2:
        return *found, None
    return *found, op.Concat(*(op.Unsqueeze(op.Concat(*of[2:], axis=0), [0]) for of in rows), axis=0)
