"""The losses of a network: which layers have one, their values for a batch, and the objective."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.options import CommonOptions
from returnn_lite.layers.core.params import ParamScope
from returnn_lite.losses.base import CommonLossOptions, Loss, make_loss
from returnn_lite.ops.kernels import on_gpu
from returnn_lite.ops.precision import full_precision
from returnn_lite.tensor import Tensor, to_beam
from returnn_lite.tensor.axes import describe
from returnn_lite.tensor.precision import in_float32


@dataclass
class LossValue:
    """A loss over one batch: `sum` and `error` are sums over frames or sequences (None: the loss has none).

    `inv_norm` is 1 / norm factor, so that `sum / inv_norm` is what is reported; `scale` and `normalized` say how the
    sum enters the objective. `inv_norm` 0 (no targets in this batch): the loss of the batch is not defined; normalised,
    it is left out of the objective.
    """

    sum: torch.Tensor | None
    error: torch.Tensor | None
    inv_norm: torch.Tensor
    scale: float
    normalized: bool

    @property
    def objective(self) -> torch.Tensor | None:
        """This loss in the objective; None where it does not count."""
        if self.sum is None or self.scale == 0:
            return None
        value = normalized_sum(self.sum, self.inv_norm) if self.normalized else self.sum
        return value if self.scale == 1 else value * self.scale


def normalized_sum(total: torch.Tensor, inv_norm: torch.Tensor) -> torch.Tensor:
    """total / inv_norm; 0 with a gradient of 0 where inv_norm is 0."""
    norm = inv_norm.to(total.device)
    empty = norm == 0
    return torch.where(empty, torch.zeros_like(total), total / torch.where(empty, torch.ones_like(norm), norm))


@dataclass
class LossNode:
    """A loss at a node, seen from the root net."""

    name: str
    node: Node
    target: Node | None
    loss: Loss
    common: CommonLossOptions
    only_on_eval: bool
    inverse_norm_node: Node | None
    path: str
    layer_nodes: dict[str, Node] = field(default_factory=dict)

    def compute(self, values: dict[Node, Tensor], training: bool) -> LossValue:
        """The loss for the outputs of a batch, in float32. Raises ConfigError when output and target do not fit."""
        output = in_float32(values[self.node])
        with full_precision(output.device):
            return self._compute(output, values, training)

    def _compute(self, output: Tensor, values: dict[Node, Tensor], training: bool) -> LossValue:
        time_major = not self.loss.recurrent and _is_time_major(output)
        output = _prepared(output, time_major)
        target = _prepared(in_float32(values[self.target]), time_major) if self.target is not None else None
        if target is not None and not self.loss.of_beam:
            target = to_beam(target, output.beam)
        inv_norm = self._inverse_norm(output, target, values)
        scale, normalized = self.common.scale, self.common.use_normalized_loss
        if self.only_on_eval and training:
            zero = output.data.flatten()[:0].sum()  # in the graph, so that its parameters get gradients of 0
            return LossValue(zero, zero.detach(), inv_norm, scale, normalized)
        if target is not None and not self.loss.recurrent and self.loss.compares_frames:
            self._check(output, target, emptied_text(self.node, values) if 0 in output.shape else "")
        self.loss.training, self.loss.generator = training, self.node.layer.context.generator
        self.loss.layers = {option: in_float32(values[n]) for option, n in self.layer_nodes.items()}
        try:
            if target is not None:
                self.loss.check(output.spec, target.spec)
            sums = self.loss.compute(output, target)
        except ConfigError as exc:
            raise ConfigError(exc.path or self.path, exc.message + emptied_text(self.node, values)) from exc
        finally:
            self.loss.layers = {}
        return LossValue(sums.value, sums.error, inv_norm, scale, normalized)

    def _inverse_norm(self, output: Tensor, target: Tensor | None, values: dict[Node, Tensor]) -> torch.Tensor:
        custom = self.common.custom_norm_factor
        if self.inverse_norm_node is not None:
            return values[self.inverse_norm_node].data.sum().to(torch.float32)
        if custom is not None:
            factor = float(custom() if callable(custom) else custom)
            if not 0 < factor < math.inf:
                text = f"`custom_norm_factor` must be a number above 0, but is {factor!r} instead"
                raise ConfigError(f'{self.path}["loss_opts"]', text)
            return torch.full((), 1.0 / factor, device=output.device)
        return self.loss.inverse_norm(output, target)

    def _check(self, output: Tensor, target: Tensor, emptied: str) -> None:
        both = f"target: {describe(target.spec)}, output: {describe(output.spec)}"
        if (output.spec.time is None) != (target.spec.time is None):
            raise ConfigError(self.path, f"output and target must both have a time axis, or none; {both}")
        if (
            target.spec.sparse
            and output.spec.dim is not None
            and target.spec.dim is not None
            and not output.spec.sparse
        ):
            if output.spec.dim != target.spec.dim:
                raise ConfigError(
                    self.path, f"the output must have dim {target.spec.dim}, but has {output.spec.dim}; {both}"
                )
        frames, wanted = output.shape[:-1], target.shape if target.spec.sparse else target.shape[:-1]
        if frames != wanted:
            text = f"output and target must have the same frames, but have {tuple(frames)} and {tuple(wanted)}"
            raise ConfigError(self.path, f"{text}{emptied or self._without_alignment(target)}; {both}")
        found, wanted_lengths = _lengths(output), _lengths(target)
        if found is not None and wanted_lengths is not None and not torch.equal(found, wanted_lengths):
            text = f"the sequences of output and target must have the same lengths, but have {found.tolist()}"
            hint = self._without_alignment(target)
            raise ConfigError(self.path, f"{text} and {wanted_lengths.tolist()}{hint}; {both}")

    def _without_alignment(self, target: Tensor) -> str:
        """The end of an error message about labels that are more or fewer than frames."""
        if not target.spec.sparse or target.spec.time is None:
            return ""
        return f' (the loss "{self.loss.loss_name}" needs a label a frame; for fewer labels use "ctc", or attention)'


def _lengths(x: Tensor) -> torch.Tensor | None:
    """The lengths on the time axis; None without any, and on a GPU, which would have to wait for them."""
    dim = None if x.spec.time is None else x.spec.dims[x.spec.time]
    if dim is None or not dim.dynamic:
        return None
    values = x.length(dim).values
    return None if on_gpu(values) else values


def _is_time_major(x: Tensor) -> bool:
    return x.spec.time is not None and x.spec.batch is not None and x.spec.time < x.spec.batch


def _prepared(x: Tensor, time_major: bool) -> Tensor:
    """Batch and time (the larger array keeps its order), then the others, feature last."""
    spec = x.spec
    front = [i for i in (spec.batch, spec.time) if i is not None]
    if time_major:
        front.reverse()
    last = [spec.feature] if spec.feature is not None and spec.feature not in front else []
    middle = [i for i in range(spec.rank) if i not in front and i not in last]
    return x.permuted((*front, *middle, *last))


def loss_node(name: str, node: Node, target: Node | None, inverse_norm: Node | None) -> LossNode:
    """The loss that the layer of `node` has by its options `loss`, `loss_opts`, `loss_scale`."""
    layer = node.layer
    path = layer.path
    options = layer.options
    opts = dict(options.loss_opts or {})
    if options.loss_scale not in (None, 1.0) and "scale" in opts and opts["scale"] != options.loss_scale:
        raise ConfigError(path, "`loss_scale` and the loss option `scale` cannot be used together")
    made, common = make_loss(options.loss, opts, path)
    made.configure(layer.context.config, layer.behavior)
    if options.loss_scale is not None:
        common.scale = options.loss_scale
    return LossNode(name, node, target, made, common, bool(options.only_on_eval), inverse_norm, path)


def constraints(scopes: Iterable[tuple[ParamScope, CommonOptions]]) -> list[tuple[float, list[torch.nn.Parameter]]]:
    """(L2 factor, parameters) of every layer with the option `L2`; records the factors for the optimizer."""
    found = []
    for scope, options in scopes:
        if options.L2:
            names = _covered(scope)
            for name in names:
                scope.store.options[name].l2 += float(options.L2)
            params = [scope.store.params[n] for n in names if scope.store.params[n].dtype.is_floating_point]
            found.append((float(options.L2), params))
    return found


def _covered(scope: ParamScope) -> list[str]:
    """The parameters that a layer owns; for a layer that is a net of its own those of all its layers."""
    if scope.owned:
        return [scope.full_name(name) for name in scope.owned]
    return [name for name in scope.store.params if name.startswith(scope.full_name(""))]


def emptied_text(node: Node, values: Mapping[Node, Tensor]) -> str:
    """The end of an error message: which layer has left no frames to `node`; "" where none has."""
    waiting, seen = [node], set()
    while waiting:
        at = waiting.pop()
        if at in seen or at not in values or not _is_empty(values[at]):
            continue
        seen.add(at)
        sources = [source for source in at.inputs if source in values]
        if sources and not any(_is_empty(values[source]) for source in sources):
            before = ", ".join(str(tuple(values[source].shape)) for source in sources)
            found = f"{before} has become {tuple(values[at].shape)}"
            return f'; the layer "{at.name}" ({at.layer.class_name}) leaves no frames of this batch: {found}'
        waiting += sources
    return ""


def _is_empty(x: Tensor) -> bool:
    return 0 in x.shape
