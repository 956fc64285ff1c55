"""Which axis a loop runs over, and how many ticks it makes at most."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Task, task
from returnn_lite.layers.core.node import Node
from returnn_lite.network.construct import Net
from returnn_lite.rec.inputs import InnerSource, LoopInputs
from returnn_lite.rec.loop_net import LoopNet
from returnn_lite.rec.loop_options import LoopOptions
from returnn_lite.rec.unstack import RecUnstack
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.axes import axis as find_axis

_MAX_LEN_FROM = re.compile(r"max_len_from\(\s*['\"]([^'\"]+)['\"]\s*\)")
_UNKNOWN = 'the length of the loop is not known: it needs a layer "end", a source with a time axis, or a target'


class LoopAxis:
    """Finds the axis of a loop, and what read from outside gives it: `inputs.dim`, `inputs.key`.

    In this order: the option `axis`, an axis of the source, or of anything that the loop reads or the batch holds, or a
    Dim of fixed size, or the new axis of a loop with `end`; the time axis of the source, if the unit has no `end`; that
    of `size_target`; in training that of the target; that of the data read frame by frame or declared by `rec_unstack`;
    else a new one.
    """

    def __init__(self, layer: Layer, options: LoopOptions, inputs: LoopInputs) -> None:
        self.layer = layer
        self.options = options
        self.inputs = inputs
        self._wanted: str | None = None
        self._own: Dim | None = None

    @property
    def by_target(self) -> bool:
        """Whether the target may give the axis: losses are evaluated, nothing is searched."""
        context = self.layer.context
        return bool(self.layer.options.target and context.losses and not context.search)

    @property
    def _given(self) -> Dim | None:
        """The Dim in `axis` of a loop without source."""
        axis = self.options.axis
        return axis if isinstance(axis, Dim) and not self.inputs.has_source else None

    @property
    def may_end(self) -> bool:
        """Whether the length may depend on the layer `end`."""
        if self.options.axis is not None:
            return self._given is not None and self._given.dynamic
        return not (self.layer.options.size_target or self.by_target)

    def _by_source(self, source: Spec | None) -> bool:
        """Whether the source gives the axis."""
        if source is None:
            return False
        return self.options.axis is not None or ("end" not in self.options.unit and source.time is not None)

    @task
    async def capture(self, net: Net, source: Node | None) -> None:
        """Notes the layers and data outside that the length depends on."""
        options, inputs = self.layer.options, self.inputs
        if self.options.axis is not None and not inputs.has_source:
            await self._capture_given(net)
        elif options.size_target:
            outer = await net.data(options.size_target)
            self._wanted = inputs.capture(f"data:{options.size_target}", outer)
        elif self.by_target and not self._by_source(source.spec if source is not None else None):
            target = net.target_name(options.target)
            self._wanted = inputs.capture(f"data:{target}", await net.target_outside(options.target))
        if isinstance(self.options.max_seq_len, str):
            for name in _MAX_LEN_FROM.findall(self.options.max_seq_len):
                inputs.capture(f"max_len_from:{name}", await _ask_length(net, name))

    @task
    async def _capture_given(self, net: Net) -> None:
        """Notes a data key with the axis that is given, unless the loop reads something that has it."""
        given = self._given
        if given is None:
            text = f"must be a Dim in a loop without source, but is {self.options.axis!r} instead"
            raise self.layer.error(f"`axis` {text}")
        known = (node.spec for node in self.inputs.captured.values() if node.spec is not None)
        if not given.dynamic or any(given in spec.dims for spec in known):
            return
        extern = net.shared.extern
        keys = [key for key, spec in extern.specs.items() if given in spec.dims]
        keys.sort(key=lambda key: extern.options.get(key, {}).get("available_for_inference") is False)
        if keys:
            name = f"{'base:' * net.depth}data:{keys[0]}"
            self.inputs.capture(f"axis:{name}", await net.ask(name))

    def find(self, inner: LoopNet) -> None:
        """Decides on the axis. Raises ConfigError if nothing gives one."""
        source = self.inputs.specs.get("source")
        if self._given is not None:
            self._find_given(inner, self._given)
        elif source is not None and self._by_source(source):
            self.inputs.key = "source"
            self.inputs.dim = source.dims[find_axis(source, "T" if self.options.axis is None else self.options.axis)]
        elif self._wanted is not None:
            self._take_time(self._wanted)
        else:
            self._find_read(inner)

    def _find_given(self, inner: LoopNet, given: Dim) -> None:
        """The axis that is given: of what is read from outside, or of a fixed size, or as long as `end` is False."""
        specs = self.inputs.specs.items()
        self.inputs.key = next((key for key, spec in specs if spec is not None and given in spec.dims), None)
        self.inputs.dim = given
        if self.inputs.key is None and given.dynamic:
            self._own = given
            self._take_own(inner)

    def _find_read(self, inner: LoopNet) -> None:
        frames = _frame_keys(inner)
        data = sorted(frames - {"source"})
        declared = _declared(inner)
        if data:
            self._take_time(data[0])
        elif declared is not None:
            key, unstack = declared
            spec = self.inputs.specs[key]
            self.inputs.key = key
            self.inputs.dim = spec.dims[unstack.declared_axis(spec)] if spec is not None else None
        elif "source" in frames:
            self._take_time("source")
        else:
            self._take_own(inner)

    def _take_time(self, key: str) -> None:
        spec = self.inputs.specs[key]
        if spec is None or spec.time_dim is None:
            raise self.layer.error(f"{key!r} gives the length of the loop, but has no time axis: {spec}")
        self.inputs.key, self.inputs.dim = key, spec.time_dim

    def _take_own(self, inner: LoopNet) -> None:
        """A new axis: as long as `end` is False."""
        if "end" not in inner.nodes:
            raise self.layer.error(_UNKNOWN)
        if self.options.max_seq_len is None and self.options.max_seq_len_via is None:
            raise self.layer.error("`max_seq_len` must be given for a loop that ends by its layer `end`")
        if self._own is None:
            self._own = Dim(None, f"{self.layer.name}:loop")
        self.inputs.key, self.inputs.dim = None, self._own


def tick_bound(layer: Layer, options: LoopOptions, outer: Mapping[str, Tensor]) -> int:
    """The largest number of ticks of a loop that ends by itself, by what it reads from outside."""
    value = options.max_seq_len
    if options.max_seq_len_via is not None:
        return int(outer["max_seq_len_via"].data.max())
    if isinstance(value, str):
        names = {**layer.context.eval_names, "max_len_from": lambda name: _longest(outer, name)}
        return int(eval(value, names))  # noqa: S307 - an expression of the config
    if isinstance(value, int):
        return value
    raise layer.error(f"`max_seq_len` must be an int or an expression, but is {value!r} instead")


def _frame_keys(inner: LoopNet) -> set[str]:
    """What the loop reads frame by frame."""
    read = (n.layer for n in inner.order if isinstance(n.layer, InnerSource))
    return {source.key for source in read if source.kind == "frame"}


def _declared(inner: LoopNet) -> tuple[str, RecUnstack] | None:
    """The `rec_unstack` layer with `declare_rec_time`, and what it reads."""
    for node in inner.order:
        source = node.sources[0].layer if node.sources else None
        if isinstance(node.layer, RecUnstack) and node.layer.declares and isinstance(source, InnerSource):
            return source.key, node.layer
    return None


def _ask_length(net: Net, name: str) -> Task[Node]:
    """`max_len_from`: the layer in the net of the rec layer, or in its parent."""
    if not name.startswith("base:"):
        return net.ask(name)
    plain = name[len("base:") :]
    return net.ask(plain) if plain in net.descriptions or net.parent is None else net.base(plain)


def _bare(keys: Iterable[str]) -> dict[str, str]:
    return {k.removeprefix("max_len_from:").removeprefix("base:"): k for k in keys}


def _longest(outer: Mapping[str, Tensor], name: str) -> int:
    """The largest length of the time axis of a layer."""
    key = f"max_len_from:{name}"
    x = outer[key if key in outer else _bare(outer)[name.removeprefix("base:")]]
    dim = x.spec.time_dim
    if dim is None:
        raise ValueError(f"max_len_from: {name!r} has no time axis")
    return int(x.length(dim).values.max()) if dim.dynamic else x.size(dim)
