"""The call that takes the place of attention written in layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from returnn_lite.layers.attention import GenericAttention, SoftmaxOverSpatial
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.dot import Dot
from returnn_lite.layers.dropout import noise_axes
from returnn_lite.network.building import compute
from returnn_lite.network.fusion.attention_chain import Chain, factor_of
from returnn_lite.network.fusion.attention_plan import AttentionPlan, attention_plan
from returnn_lite.ops.attention import attention
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.align import joined, place


@dataclass(frozen=True)
class _Plan:
    """What depends on the Specs of the inputs alone: the axes, and the Specs of weights and result.

    `squeezed`, `added`: axes of size 1 that leave the result, and whether one comes to its end.
    """

    axes: AttentionPlan
    weights: Spec
    out: Spec
    squeezed: tuple[int, ...]
    added: bool


class Attention(Layer):
    """What the layers of a chain compute, by `ops.attention`; where their axes are no attention, layer by layer."""

    sources = "many"
    class_name = "attention"
    recurrent = True

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self.chain = chain
        self.inputs = chain.inputs
        self.plans: dict[tuple[Spec, ...], _Plan | None] = {}
        last = chain.last.layer
        self.name, self.path, self.context, self.net = last.name, last.path, last.context, last.net
        self.scale, self.biases = _affine(chain)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """That of the last layer."""
        return self.chain.last.spec

    def fits(self) -> bool:
        """Whether the axes are those of an attention, as far as they are known before anything runs."""
        known = [n.spec for n in self.inputs]
        return all(s is not None for s in known) and self._plan(*(s for s in known if s is not None)) is not None

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The weighted values."""
        given = dict(zip(self.inputs, sources, strict=True))
        plan = self._plan(*(x.spec for x in sources))
        if plan is None or any(x.beam is not None for x in sources) or self._drops_whole_axes(plan):
            return self._layer_by_layer(given)
        return self._attended(plan, given)

    def _layer_by_layer(self, given: dict[Node, Tensor]) -> Tensor:
        values = dict(given)
        for node in self.chain.nodes:
            values[node] = compute(node, values)
        return values[self.chain.last]

    def _attended(self, plan: _Plan, given: dict[Node, Tensor]) -> Tensor:
        a, b = (given[n] for n in self.chain.product.sources)
        base = given[self.chain.values]
        axes = plan.axes
        queries, keys = (b, a) if axes.swapped else (a, b)
        q, k = axes.queries(queries.data), axes.keys(keys.data)
        sizes = axes.sizes(queries.data.shape, keys.data.shape)
        v = axes.values(base.data, sizes)
        weights = Tensor(q.new_empty(1).expand(sizes), plan.weights, {**b.lengths, **a.lengths})
        data = attention(
            q, k, v,
            mask=self._mask(plan, weights),
            bias=self._bias(plan, weights, given),
            scale=self.scale,
            dropout=self._dropout,
            generator=self.context.generator,
        )  # fmt: skip
        data = axes.result(data, sizes, axes.features_of(base.data.shape))
        for i in plan.squeezed:
            data = data.squeeze(i)
        return joined(data.unsqueeze(-1) if plan.added else data, plan.out, [a, b, base])

    def _mask(self, plan: _Plan, weights: Tensor) -> torch.Tensor | None:
        softmax = self.chain.softmax.layer
        valid = softmax.valid_part(weights, {}) if isinstance(softmax, SoftmaxOverSpatial) else None
        return None if valid is None else plan.axes.weights(valid, weights.data.shape)

    def _bias(self, plan: _Plan, weights: Tensor, given: dict[Node, Tensor]) -> torch.Tensor | None:
        total: torch.Tensor | None = None
        for node, factor in self.biases:
            part = place(given[node], weights.spec, self.behavior)
            part = plan.axes.weights(part if factor == 1.0 else part * factor, weights.data.shape)
            total = part if total is None else total + part
        return total

    @property
    def _dropout(self) -> float:
        """The rate for the weights."""
        rates = [float(n.layer.options.dropout or 0.0) for n in self.chain.between if n.layer.training]
        kept = 1.0
        for rate in rates:
            kept *= 1.0 - rate
        return 1.0 - kept

    def _drops_whole_axes(self, plan: _Plan) -> bool:
        """Whether weights are dropped in another way than each by itself."""
        layers = [n.layer for n in self.chain.between if n.layer.options.dropout]
        return any(
            x.options.dropout_on_forward
            or x.training
            and len(noise_axes(plan.weights, x.options, x.path)) < plan.weights.rank
            for x in layers
        )

    # --- planning -----------------------------------------------------------------------------------------------------

    def _plan(self, *specs: Spec) -> _Plan | None:
        if specs not in self.plans:
            self.plans[specs] = self._made_plan(dict(zip(self.inputs, specs, strict=True)))
        return self.plans[specs]

    def _made_plan(self, specs: dict[Node, Spec]) -> _Plan | None:
        chain, first, softmax = self.chain, self.chain.product.layer, self.chain.softmax.layer
        if any(s.sparse or s.dtype != "float32" for s in specs.values()):
            return None
        a, b = (specs[n] for n in chain.product.sources)
        if not isinstance(first, Dot) or not isinstance(softmax, SoftmaxOverSpatial):
            return None
        product = first.product_plan(a, b)
        energies = self._energies(product.out, specs)
        if energies is None or any(a.dims[i].dynamic for i in product.red[0]) or _broadcasts(product.equation, a, b):
            return None
        at = softmax.axis_of(energies)
        weights = energies.permuted((*(i for i in range(energies.rank) if i != at), at))
        second = _second(chain, weights, specs[chain.values])
        if second is None:
            return None
        equation, weights_first, out, squeezed, added = second
        axes = attention_plan(
            product.equation, equation, at, energies.batch, added=product.added, weights_first=weights_first
        )
        return None if axes is None else _Plan(axes, weights, out, squeezed, added)

    def _energies(self, energies: Spec, specs: dict[Node, Spec]) -> Spec | None:
        """The Spec in front of the softmax; None where a layer changes the axes."""
        known: dict[Node, Spec | None] = {**specs, self.chain.product: energies}
        for node in self.chain.energies:
            made = known[node] = node.layer.spec(*(known[n] for n in node.sources))
            if made is None or made.dims != energies.dims:
                return None
            energies = made
        return energies


def _affine(chain: Chain) -> tuple[float, list[tuple[Node, float]]]:
    """The factor of the product in front of the softmax, and what is added to it, each with its own factor."""
    scale, biases, before = 1.0, list[tuple[Node, float]](), chain.product
    factors = [factor_of(node.layer) for node in chain.energies]
    softmax = chain.softmax.layer
    factors.append(softmax.energy_factor if isinstance(softmax, SoftmaxOverSpatial) else None)
    for node, factor in zip((*chain.energies, chain.softmax), factors, strict=True):
        if factor is None and node is not chain.softmax:
            biases.append((next(n for n in node.sources if n is not before), 1.0))
        elif factor is not None:
            scale, biases = scale * factor, [(n, f * factor) for n, f in biases]
        before = node
    return scale, biases


def _second(chain: Chain, weights: Spec, values: Spec) -> tuple[str, bool, Spec, tuple[int, ...], bool] | None:
    """Of the weighted sum: equation, whether the weights are its first operand, Spec, axes squeezed, an axis added."""
    layer = chain.last.layer
    if isinstance(layer, GenericAttention):
        plan = layer.sum_plan(weights, values)
        return plan.equation, True, plan.out, tuple(plan.squeezed), False
    if not isinstance(layer, Dot):
        return None
    first = chain.last.sources[0] is chain.weights
    product = layer.product_plan(*((weights, values) if first else (values, weights)))
    return product.equation, first, product.out, (), product.added


def _broadcasts(equation: str, a: Spec, b: Spec) -> bool:
    """Whether a common axis has size 1 in one operand and another size in the other."""
    letters = equation.split("->")[0].split(",")
    of_a, of_b = (dict(zip(text, x.dims, strict=True)) for text, x in zip(letters, (a, b), strict=True))
    return any(of_a[c].size != of_b[c].size for c in of_a if c in of_b)
