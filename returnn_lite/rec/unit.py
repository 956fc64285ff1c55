"""`rec` with a named unit, and `rnn_cell`."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from returnn_lite.config.option_types import PositiveInt, is_int
from returnn_lite.config_value import ConfigOptions
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.context import Surroundings
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import LoopConstants, LoopStart, State, Stateful, Tick, is_frame
from returnn_lite.rec.ahead import look_ahead
from returnn_lite.rec.both_directions import BothDirections, Direction
from returnn_lite.rec.cells import Cell, ParamSpec, Weights, make_cell
from returnn_lite.rec.last_state import request_state
from returnn_lite.rec.rows import in_rows, row_data, time_major
from returnn_lite.rec.unit_state import InitialState
from returnn_lite.rec.varying import first_frame
from returnn_lite.tensor import Dim, Spec, Tensor, batch_dim
from returnn_lite.tensor.align import joined
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axis as find_axis


class Unit(Stateful):
    """Base of `rec` with a named unit and `rnn_cell`: a recurrent cell over the time axis, or one tick of it in a loop.

    Shape: (B, T, F) -> (T, B, n_out), frames after the sequence ends are 0; in a loop (B, F) -> (B, n_out). Parameters
    are those of the cell, below `rec/`.
    """

    recurrent = True
    checks_n_out = False
    single_step: ClassVar[bool] = False
    remembers: ClassVar[tuple[str, ...]] = ("initial",)
    state_has_loops: ClassVar[bool] = True

    def __init__(
        self, *, n_out: int | None, unit: str, unit_opts: Mapping[str, Any] | None, initial_state: Any
    ) -> None:
        super().__init__()
        if not isinstance(unit, str):
            raise self.error(f"`unit` must be the name of a unit, but is {unit!r} instead")
        self.n_out = n_out
        self.unit = unit
        self.unit_opts = unit_opts
        self.initial = InitialState(initial_state, "" if self.single_step else "rec/")
        self.axis: Any = None
        self.reverse = False
        self.input_projection = True
        self.inits: dict[str, Any] = {}
        self.needs_state = False
        self.in_loop = False
        self._cell: Cell | None = None

    @property
    def cell(self) -> Cell:
        """The unit's formulas."""
        if self._cell is None:
            size = self.n_out or getattr(self.options.out_dim, "size", None)
            if size is None:
                raise self.error("the number of units is not known: give `n_out`")
            opts = dict(self.unit_opts or {})
            if self.unit.lower() == "zoneoutlstm" and self.behavior >= 17:
                opts.setdefault("use_zoneout_output", True)
            self._cell = make_cell(self.unit, size, opts, single_step=self.single_step)
        return self._cell

    async def link(self, net: Linker, node: Node) -> None:
        """Refers to the layers that give initial states."""
        if self.options.state is not None:
            self.initial = InitialState(self.options.state, self.initial.scope)
        self.in_loop = net.inside_loop
        for key, name in self.initial.layers(self.cell).items():
            node.refs[key] = await net.ask(name)
            request_state(node.refs[key])

    @property
    def differs_by_step(self) -> str:
        """A state may be kept over batches."""
        return "keeps its state over batches" if self.initial.is_kept else ""

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """Time-major with `n_out` features; of one frame (B, …, n_out)."""
        feature = self.feature_dim(self.cell.n_out, x)
        if x is None:
            return Spec((batch_dim, feature), time=None)
        at = None if is_frame(x, self.axis) else self._axis(x)
        others = [d for i, d in enumerate(x.dims) if i not in (at, x.batch, x.feature)]
        if at is not None:
            return Spec((x.dims[at], batch_dim, *others, feature), time=0, feature=2 + len(others), loop=x.loop)
        loops = [d for d in others if d in x.loop]
        dims = (*loops, batch_dim, *(d for d in others if d not in x.loop), feature)
        time = None if x.time_dim is None else dims.index(x.time_dim)
        return Spec(dims, time=time, feature=len(dims) - 1, loop=x.loop)

    def _axis(self, x: Spec) -> int:
        return find_axis(x, "T" if self.axis is None else self.axis)

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """The cell's parameters."""
        n_in = sources[0].dim
        if n_in is None:
            raise self.error(f"the source needs features, but is {sources[0]}")
        self.weights = {}
        for p in self.cell.params(n_in, input_projection=self.input_projection):
            blocks = _axis_blocks(p, self.source_sizes, self.cell.n_out)
            self.weights[p.name] = self.param(f"rec/{p.name}", p.shape, self._init(p.init), blocks=blocks)
        self.initial.build(self, self.cell)

    def _init(self, init: Any) -> Any:
        """The initialiser of a parameter: of the option it belongs to, else the unit's own, else glorot uniform."""
        default = self.inits.get("recurrent") or self.inits.get("weights") or "glorot_uniform"
        if init in ("weights", "recurrent", "default"):
            return self.inits.get(init) or default
        if init == "bias":
            return self.inits.get("bias") or 0.0
        if isinstance(init, tuple):
            return _Blocks(init)
        return init

    # --- over the time axis -------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """All frames, or the only one."""
        if is_frame(x.spec, self.axis):
            return self._frame(x, refs)
        return self._sequence(x, self._axis(x.spec), refs, self.spec(x.spec))

    def over(self, dim: Dim, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """All ticks of a loop at once, when the layer was moved out of it."""
        x = self.run_input(sources)
        if dim not in x.spec.loop or not is_frame(x.spec.in_loop(dim), self.axis):
            return self.forward(x, **refs)
        out = self._sequence(x, x.spec.dims.index(dim), {k: first_frame(r, dim) for k, r in refs.items()}, None)
        dims = out.spec.dims
        time = None if x.spec.time_dim is None else dims.index(x.spec.time_dim)
        spec = Spec(dims, time=time, feature=out.spec.feature, loop=x.spec.loop)
        return Tensor(out.data, spec, out.lengths, out.beam, state=out.state)

    def _sequence(self, x: Tensor, at: int, refs: dict[str, Tensor], spec: Spec | None) -> Tensor:
        dim = x.spec.dims[at]
        batch = [i for i in range(x.spec.rank) if i not in (at, x.spec.batch, x.spec.feature)]
        data, others = time_major(x, at, batch)
        lengths = x.length(dim).values if dim.dynamic else None
        if lengths is not None and others:
            lengths = lengths.repeat_interleave(data.shape[1] // lengths.shape[0])
        start = self.initial.state(self, self.cell, data.shape[1], data.device, refs)
        out, final = self.cell.sequence(
            self.weights, data, lengths, start, reverse=self.reverse, training=self.training,
            generator=self.context.generator, need_state=self.needs_state or self.initial.is_kept,
            sparse_grad=torch.is_grad_enabled(), zero_padded=x.zero_padded,
        )  # fmt: skip
        if others:
            out = out.reshape(out.shape[0], -1, *others, out.shape[-1])
            if final and all(x.spec.dims[i] in x.spec.loop for i in batch):  # loops come first
                final = {k: v.reshape(-1, *others, v.shape[-1]).movedim(0, -2) for k, v in final.items()}
        if spec is None:
            spec = Spec((dim, batch_dim, *(x.spec.dims[i] for i in batch), self.feature_dim(self.cell.n_out, x.spec)))
        self.initial.keep(self, final)
        return x.with_data(out, spec, state=final, zero_padded=True)

    # --- tick by tick -------------------------------------------------------------------------------------------------

    def carries_state(self, sources: tuple[Spec | None, ...]) -> bool:
        """Whether the layer is one tick of the loop around it: the source is one frame, and no `state` is given."""
        return self.options.state is None and all(s is None or is_frame(s, self.axis) for s in sources)

    def begin_loop(self, batch: int) -> LoopConstants:
        """What is constant over one run of a loop."""
        return self.cell.begin_ticks(self.weights, self.training, self.context.generator, batch)

    def look_ahead(
        self, constants: LoopConstants, known: Sequence[Tensor | None], specs: Sequence[Spec | None], dim: Dim
    ) -> LoopConstants:
        """The products of known sources."""
        plain = not self.options.dropout and self.options.in_dim is None
        if plain and "w" in constants and len(known) > 1:
            constants.ahead = look_ahead(constants, known, specs, self.source_sizes, dim)
        return constants

    def first_state(self, make: LoopStart, refs: Mapping[str, Tensor]) -> State:
        """The state before the first tick."""
        state = self.initial.state(self, self.cell, make.batch, make.device, refs)
        return self.cell.before_ticks(state or self.cell.zero_state(make.batch, make.device, torch.float32))

    def initial_output(self, make: LoopStart, spec: Spec, state: State | None = None) -> Tensor:
        """What "prev:" of this layer reads at the first tick: the output part of the initial state."""
        state = self.first_state(make, {}) if state is None else state
        return Tensor(self.cell.output_of_state(state), spec, make.lengths, state=state)

    def step(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """One tick."""
        out, new = self._tick(constants, sources, state, tick)
        self.initial.keep(self, out.state)
        return out, new

    def _tick(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        ahead = constants.ahead
        if ahead is not None and ahead.spec is not None:
            out, new = self.cell.end_tick(
                ahead.sums([sources[i].data for i in ahead.rest], state["h"], tick.number), state
            )
            return joined(out, ahead.spec, sources, state={key: new[key] for key in self.cell.state_keys}), new
        x = self.run_input(sources)
        spec = self.made_spec(x.spec)
        if ahead is not None:
            ahead.spec = spec
        return self._step(x, spec, constants, state)

    def _frame(self, x: Tensor, refs: dict[str, Tensor]) -> Tensor:
        """One frame alone, from the state that is given."""
        spec = self.made_spec(x.spec)
        shape = row_data(x, spec).shape[: spec.rank - 1]
        start = self.initial.of_frame(self, self.cell, spec, shape, x.device, refs)
        return self._step(x, spec, self.begin_loop(math.prod(shape)), self.cell.before_ticks(start))[0]

    def _step(self, x: Tensor, spec: Spec, weights: Weights, state: State) -> tuple[Tensor, State]:
        """One step of every row; axes besides batch and features are further rows."""
        data = row_data(x, spec)
        shape = data.shape[: spec.rank - 1]
        if len(shape) > 1:
            data, state = data.flatten(0, len(shape) - 1), {k: in_rows(v, shape) for k, v in state.items()}
        out, new = self.cell.tick(weights, data, state)
        if len(shape) > 1:
            out, new = out.reshape(*shape, -1), {k: v.reshape(*shape, -1) for k, v in new.items()}
        seen = {key: new[key] for key in self.cell.state_keys}
        return x.with_data(out, spec, state=seen), new


class _Blocks:
    """An initialiser with one number for each of the equal blocks of the last axis."""

    def __init__(self, values: tuple[float, ...]) -> None:
        self.values = values

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        """The filled tensor."""
        size = shape[-1] // len(self.values)
        return torch.tensor(self.values, dtype=dtype).repeat_interleave(size).expand(shape).clone()


# What named units alone have, and a loop may be given without effect: any initialiser, and defaults.
_INITS = ("forward_weights_init", "recurrent_weights_init", "bias_init")
_UNSET: dict[str, tuple[Any, ...]] = {
    "unit_opts": (None, {}),
    "unroll": (None, False),
    "input_projection": (None, True),
}


@layer("rec")
class RecUnit(Unit):
    """A recurrent unit over the time axis (`unit` is a name), or a loop over a sub-network (`unit` is a dict).

    Shape: (B, T, F) -> (T, B, n_out); of a single frame (B, F) -> (B, n_out). `direction` -1 runs each sequence from
    its own last frame; `axis`: another axis, further axes count as batch; `single_step_dim`: the source is one frame.
    `state`: the layers that give the state before that frame, as in `initial_state`; without it a loop around keeps the
    state, and outside of loops it is the initial one. See `rec/cells` for the units and their parameters.
    """

    def __init__(
        self,
        *,
        n_out: PositiveInt | None = None,
        unit: str = "lstm",
        unit_opts: Mapping[str, Any] | None = None,
        direction: int | None = None,
        initial_state: Any = None,
        input_projection: bool = True,
        max_seq_len: Any = None,
        max_seq_len_via: LayerRef | None = None,
        forward_weights_init: Any = None,
        recurrent_weights_init: Any = None,
        bias_init: Any = None,
        unroll: bool = False,
        axis: AxisText = None,
        optimize_move_layers_out: bool | None = None,
        include_eos: bool = False,
        back_prop: bool | None = None,
        debug: bool | None = None,
        use_global_rec_step_offset: bool = False,
        cheating: bool = False,
    ) -> None:
        super().__init__(n_out=n_out, unit=unit, unit_opts=unit_opts, initial_state=initial_state)
        if direction not in (None, 1, -1):
            raise self.error(f"`direction` must be 1 or -1, but is {direction!r} instead")
        if max_seq_len is not None and not unroll:
            raise self.error("`max_seq_len` is only for loops over a sub-network (`unit` a dict), or with `unroll`")
        if unroll and not is_int(max_seq_len):
            raise self.error(f"`unroll` needs an int as `max_seq_len`, but it is {max_seq_len!r} instead")
        self.reverse = direction == -1
        self.axis = axis
        self.input_projection = input_projection
        self.inits = {"weights": forward_weights_init, "recurrent": recurrent_weights_init, "bias": bias_init}

    @property
    def joint_kind(self) -> Hashable:
        """Plain LSTMs that begin with zeros, of one size."""
        plain = self.cell.torch_lstm and self.input_projection and not self.needs_state
        return ("lstm", self.cell.n_out, str(self.axis)) if plain and self.initial.is_zero else None

    def joint(self, members: Sequence[Layer]) -> BothDirections | None:
        """One of each direction."""
        units = [Direction(x, x.cell, x.weights, x.reverse) for x in members if isinstance(x, RecUnit)]
        return BothDirections(units) if len(units) == 2 and units[0].reverse != units[1].reverse else None

    @classmethod
    def prepare(cls, description: ConfigOptions, net: Surroundings) -> ConfigOptions:
        """A dict as `unit` is a loop."""
        if isinstance(description.get("unit"), dict):
            unset = {k for k, v in description.items() if k in _INITS or (k in _UNSET and v in _UNSET[k])}
            return {**{k: v for k, v in description.items() if k not in unset}, "class": "rec.loop"}
        return description


@layer("rnn_cell")
class RnnCell(Unit):
    """One tick of a recurrent unit, for loops.  Shape: (B, F) -> (B, n_out); with a time axis as `rec`."""

    single_step = True

    def __init__(
        self,
        *,
        unit: str,
        n_out: PositiveInt | None = None,
        unit_opts: Mapping[str, Any] | None = None,
        initial_state: Any = None,
        weights_init: Any = "xavier",
        forward_weights_init: Any = None,
    ) -> None:
        super().__init__(n_out=n_out, unit=unit, unit_opts=unit_opts, initial_state=initial_state)
        self.inits = {"weights": forward_weights_init or weights_init}


def _axis_blocks(p: ParamSpec, source_sizes: tuple[int, ...], size: int) -> tuple[tuple[int, ...], ...]:
    """The blocks of a cell's parameter: sources on the axis of the input, gates on the others."""
    blocks = [(size,) * (n // size) if n % size == 0 else (n,) for n in p.shape]
    if len(p.shape) > 1 and p.shape[0] == sum(source_sizes) and not p.name.endswith("_re"):
        blocks[0] = source_sizes
    return tuple(blocks)
