"""`Layer`: the base of all layer classes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigOptions
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.context import Context, NetName, Surroundings
from returnn_lite.layers.core.init import InitialValue
from returnn_lite.layers.core.options import CommonOptions
from returnn_lite.layers.core.params import ParamScope, Shape
from returnn_lite.layers.dropout import drop_input
from returnn_lite.log import Log
from returnn_lite.ops.precision import full_precision
from returnn_lite.tensor import Dim, Spec, Tensor, batch_dim, latest_beam, to_beam
from returnn_lite.tensor.align import concat_features, concat_plan
from returnn_lite.tensor.axes import axes
from returnn_lite.tensor.dim import FEATURE
from returnn_lite.tensor.precision import in_float32

LayerRef = str  # annotation of options whose value names a layer


def _spec(self: Layer, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
    """The Spec of the output for these sources: that of the first source, unless a class says otherwise."""
    return sources[0]


def _build(self: Layer, *sources: Spec, **refs: Spec) -> None:
    """Makes the parameters (`self.param`); called once, when the Specs of all sources are known."""


def _forward(self: Layer, *sources: Tensor, **refs: Tensor) -> Tensor:
    """The output for these sources."""
    raise TypeError(f"layer class {self.class_name!r} has no forward")


class Layer(torch.nn.Module):
    """A named node of a net.

    A class says its options as keyword-only parameters of `__init__` (the list of options *is* the signature), what
    comes out as `spec(*source_specs, **refs)`, its parameters in `build(...)`, and computes in `forward(...)`. `spec`
    returns None as long as a source is None and the answer depends on it (inside loops); it is remembered per
    arguments.

    Class attributes: `sources`: "one" = the sources are concatenated along the feature axis and dropped out as the
    common options say, "many" = each is an argument, "none"; `default_from`; `recurrent`: frames depend on each
    other, so batches keep sequences apart; `lets_padding_through`: valid frames near a sequence end see frames behind
    it, as in the reference; `hidden_state`: the layer carries its own state from tick to tick; `makes_beam`: there are
    other hypotheses behind it; `grows`: its axes grow with the ticks; `keeps_order`: later choices do not re-order it;
    `passes_through`: the output is the source, so in loops others read that, and the layer runs once, after the loop;
    `in_dim_is_features`: that option names the feature axis; `remembers`: attributes that outlast a run, besides
    parameters; `full_precision`: it computes in float32 under `torch_amp`, too; `writes`: it writes files, which are
    wanted wherever it is built.
    """

    class_name: ClassVar[str] = ""
    sources: ClassVar[str] = "one"
    default_from: ClassVar[tuple[str, ...]] = ("data",)
    recurrent: ClassVar[bool] = False
    lets_padding_through: ClassVar[bool] = False
    hidden_state: ClassVar[bool] = False
    passes_through: ClassVar[bool] = False
    makes_beam: ClassVar[bool] = False
    grows: ClassVar[bool] = False
    keeps_order: ClassVar[bool] = False
    checks_n_out: ClassVar[bool] = True
    needs_source: ClassVar[bool] = True
    in_dim_is_features: ClassVar[bool] = True
    remembers: ClassVar[tuple[str, ...]] = ()
    full_precision: ClassVar[bool] = False
    writes: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self.path = ""
        self.options = CommonOptions()
        self.scope: ParamScope | None = None
        self.context: Context = _no_context()
        self.net = NetName()  # whose layer it is
        self.source_sizes: tuple[int, ...] = ()  # features of each source, known in `build`
        self._dims: dict[tuple[str, int | None], Dim] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "spec" in cls.__dict__:
            cls.spec = _memoized(cls.__dict__["spec"])

    # --- what a class says of itself ----------------------------------------------------------------------------------

    # Methods, each with the sources and layer-valued options of its class as arguments (as torch types `forward`).
    spec: Callable[..., Spec | None] = _spec
    build: Callable[..., None] = _build
    forward: Callable[..., Tensor] = _forward

    def made_spec(self, *sources: Spec, **refs: Spec) -> Spec:
        """`spec` where all sources are known, as they are in `forward`."""
        made = self.spec(*sources, **refs)
        if made is None:
            raise self.error("the axes of the output are not known")
        return made

    async def building(self) -> None:
        """Awaits what is to be built before, in a layer that holds a net of its own."""

    def inside(self) -> str:
        """What a layer that holds others says of them, a line each; "" for all others."""
        return ""

    def freeze(self) -> None:
        """Called once, when the whole network is built."""

    def end_run(self, *, failed: bool) -> None:
        """What is to be done after a pass over a dataset, which an error may have ended."""

    def close(self) -> None:
        """What is to be done when the layer is not needed any more."""

    def part_spec(self, part: str) -> Spec | None:
        """The Spec of a further output; None if there is none of this name."""
        return None

    def part_spec_from(self, part: str, output: Spec | None) -> Spec | None:
        """The same, where that of the output tells it."""
        return self.part_spec(part)

    def decided_beam(self) -> int | None:
        """The beam size of the output in a search, for a layer that decides on it."""
        return None

    @classmethod
    def prepare(cls, description: ConfigOptions, net: Surroundings) -> ConfigOptions:
        """A chance to rewrite the layer dict before its options are split (e.g. what `from` means in training)."""
        return description

    # --- helpers for classes ------------------------------------------------------------------------------------------

    def param(
        self,
        name: str,
        shape: Shape,
        init: InitialValue = 0.0,
        *,
        blocks: tuple[Shape, ...] | None = None,
        trainable: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> torch.nn.Parameter:
        """The parameter `name` (the reference's name), registered on the module; `blocks`: see `ParamOptions`."""
        if self.scope is None:
            raise RuntimeError(f"layer {self.name!r} is not part of a network")
        value = self.scope.get(name, shape, init, trainable=trainable, dtype=dtype)
        if blocks is not None and name in self.scope.owned:
            self.scope.store.options[self.scope.full_name(name)].blocks = blocks
        attribute = name.replace("/", "__").replace(".", "__")
        taken = hasattr(self, attribute) and attribute not in self._parameters
        self.register_parameter(f"{attribute}_" if taken else attribute, value)
        return value

    def dim(self, name: str, size: int | None, kind: str = FEATURE, joint: str = ":") -> Dim:
        """An axis made by this layer, called "<layer>:<name>"; the same object at every call."""
        key = (name, size)
        if key not in self._dims:
            self._dims[key] = Dim(size, f"{self.name}{joint}{name}", kind=kind)
        return self._dims[key]

    def feature_dim(self, n_out: int | None, x: Spec | None = None, name: str = "feature-dense") -> Dim:
        """The new feature axis: `out_dim` if given; the input's own if the size stays; else a new one."""
        given = self.options.out_dim
        if given is not None:
            return given if n_out is None else self.axis_dim(given, self.dim(name, n_out))
        if n_out is None:
            raise self.error("the output size is not known: give `n_out`, `out_dim` or `target`")
        if x is not None and x.feature is not None and x.dims[x.feature].size == n_out:
            return x.dims[x.feature]
        return self.dim(name, n_out)

    def axis_dim(self, given: Dim | None, computed: Dim) -> Dim:
        """An axis that this layer makes: `computed`, under the Dim that the config gives for it (None: its own).

        A given Dim without a size gets the size or the lengths of the computed one.
        """
        if given is None or computed.is_batch:
            return computed
        if given.size is not None and given.size != computed.size:
            raise self.error(f"the given axis {given} must be of the size of {computed}")
        if given.size is None and given != computed:
            self._dims[f"meaning of {given.name}", id(given)] = computed
            given.declare(computed)
        return given if computed.size is None else given.with_size(computed.size)

    def error(self, message: str) -> ConfigError:
        """A ConfigError with the path of this layer."""
        return ConfigError(self.path, message)

    @property
    def behavior(self) -> int:
        """The behaviour version of the config."""
        return self.context.behavior

    @property
    def sees_batch(self) -> bool:
        """Whether the output of a sequence may depend on the others in the batch."""
        return False

    @property
    def joint_kind(self) -> Hashable:
        """Layers of one source whose kinds are equal may be computed together; None: this one is not."""
        return None

    def joint(self, members: Sequence[Layer]) -> Any:  # Any: a `Joint`, which is made of layers
        """What computes these layers of one kind together; None if nothing does."""
        return None

    @property
    def differs_by_step(self) -> str:
        """What the layer does anew at each step besides computing with tensors, so that a recorded step cannot be
        repeated in its place; "" for most layers."""
        return ""

    @property
    def stays_in_loop(self) -> str:
        """Why the layer is not moved out of a loop, "" if nothing forbids it."""
        return ""

    def is_recurrent(self) -> bool:
        """Whether this layer makes frames depend on each other."""
        return self.recurrent

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Nothing: the network has the parameters of all layers, under their names."""

    def _load_from_state_dict(self, *args: Any) -> None:
        """Nothing."""

    def extra_repr(self) -> str:
        """The layer's name."""
        return repr(self.name)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Layer):  # the network has all layers; none is a part of another one
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # --- called by the network ----------------------------------------------------------------------------------------

    def output_spec(self, sources: tuple[Spec | None, ...], refs: Mapping[str, Spec | None]) -> Spec | None:
        """`spec` with what all layers do before (concatenation) and after (checks of common options)."""
        if self.sources == "one" and sources:
            sources = (self._joined_spec(sources),)
        result = self.spec(*sources, **refs)
        if result is not None and self.checks_n_out and self.options.n_out is not None and result.dim is not None:
            if result.dim != self.options.n_out and result.feature_dim is not None:
                raise self.error(f"`n_out` must be {result.dim}, but is {self.options.n_out} instead")
        return result

    def _joined_spec(self, sources: tuple[Spec | None, ...]) -> Spec | None:
        """The Spec of the concatenated sources. Where some are unknown yet (in loops), those known give the axes of
        layers with a feature size of their own."""
        known = tuple(s for s in sources if s is not None)
        if len(known) < len(sources) and not (known and hasattr(self, "n_out")):
            return None
        if len(known) == 1:
            return self._features_named(known[0])
        joined = concat_plan(known, self.behavior)[0]
        self.check_broadcast(joined, known)
        return self._features_named(joined)

    def check_broadcast(self, layout: Spec, sources: tuple[Spec, ...]) -> None:
        """From behaviour version 4 on some source must have all axes of `layout`, unless an option allows more."""
        if self.behavior < 4 or self.options.out_shape is not None or self.options.out_type:
            return
        tick = layout.one_tick()  # a layer moved out of a loop is allowed what each tick is
        if not any(s.one_tick().rank == tick.rank for s in sources):
            text = f"all inputs {', '.join(map(str, sources))} require broadcasting to {layout}"
            raise self.error(f"{text}; this must be explicitly allowed, e.g. by `out_shape` (behavior_version >= 4)")

    def _features_named(self, x: Spec) -> Spec:
        """The joined sources, whose feature axis is the one that `in_dim` names."""
        dim = self.options.in_dim
        if dim is None or x.sparse or not self.in_dim_is_features:
            return x
        named = axes(x, dim, option="in_dim")
        return x if x.feature in named or not named else x.roles(feature=named[0])

    @property
    def given_size(self) -> int | None:
        """The number of features that the options alone give, of the output or else of the source."""
        given = self.options.out_type
        by_type = given.get("dim") if isinstance(given, Mapping) else None
        return self.options.n_out or getattr(self.options.out_dim, "size", None) or by_type

    def supposed_spec(self, sources: tuple[Spec | None, ...], refs: Mapping[str, Spec | None]) -> Spec | None:
        """A Spec to begin with in a circle of layers: as if the sources were those known so far.

        Where none is known they are taken to be (B, F) of the size given by the options, or (B,) where these give all
        axes; None otherwise. It is inferred anew when more is known.
        """
        known = tuple(s for s in sources if s is not None)
        if not known and sources:
            size, given = self.given_size, self.options.out_type
            if size is not None:
                known = (Spec((batch_dim, self.dim("feature-dense", size)), time=None),)
            elif isinstance(given, Mapping) and not given.keys().isdisjoint(("shape", "dim_tags", "dims")):
                known = (Spec((batch_dim,), time=None, feature=None),)
        return self.output_spec(known, refs) if known else None

    def build_with(self, sources: tuple[Spec, ...], refs: Mapping[str, Spec]) -> None:
        """`build` with the Specs that `forward` will see."""
        self.source_sizes = tuple(s.dim or 0 for s in sources)
        if self.sources == "one" and sources:
            joined = sources[0] if len(sources) == 1 else concat_plan(sources, self.behavior)[0]
            sources = (self._features_named(joined),)
        self.build(*sources, **refs)

    def run(self, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """The output: sources brought to the newest beam, concatenated and dropped out, then `forward`."""
        if self.context.beams and (refs or len(sources) > 1):
            beam = latest_beam([*sources, *refs.values()])
            if beam is not None:
                sources = [to_beam(x, beam) for x in sources]
                refs = {k: to_beam(x, beam) for k, x in refs.items()}
        if self.full_precision and sources:
            sources, refs = [in_float32(x) for x in sources], {k: in_float32(x) for k, x in refs.items()}
            with full_precision(sources[0].data.device):
                return self._forward_all(sources, refs)
        return self._forward_all(sources, refs)

    def _forward_all(self, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        if self.sources != "one" or not sources:
            return self.forward(*sources, **refs)
        return self.forward(self.run_input(sources), **refs)

    def run_input(self, sources: list[Tensor]) -> Tensor:
        """The sources concatenated along the feature axis, and dropped out."""
        x = sources[0] if len(sources) == 1 else concat_features(sources, self.behavior)
        if self.options.in_dim is not None:
            x = x.copy()
            x.spec = self._features_named(x.spec)
        if self.options.dropout:
            x = drop_input(x, self.options, self.training, self.context.generator, self.path)
        return x


def _memoized(spec: Callable[..., Spec | None]) -> Callable[..., Spec | None]:
    """`spec`, computed once per layer and arguments."""

    @functools.wraps(spec)
    def memoized(self: Layer, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        known: dict[Any, tuple[Spec | None, Any]] = self.__dict__.setdefault("_known_specs", {})
        same = (spec, *map(id, sources), *map(id, refs.values()))
        found = known.get(same)  # mostly the very objects of the last call: comparing Specs costs more
        if found is not None:
            return found[0]
        memo: dict[Any, Spec | None] = self.__dict__.setdefault("_specs", {})
        key = (spec, sources, tuple(refs.values()))
        if key not in memo:
            memo[key] = spec(self, *sources, **refs)
        if len(known) >= 64:
            known.clear()
        known[same] = memo[key], key  # the key keeps the objects, so that their ids stay theirs
        return memo[key]

    return memoized


@functools.cache
def _no_context() -> Context:
    return Context(Config(), Log.silent())
