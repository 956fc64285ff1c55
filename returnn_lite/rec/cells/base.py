"""What all recurrent units have in common: parameters by name, one tick, a whole sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from returnn_lite.errors import ConfigError
from returnn_lite.ops.dropout import dropout_mask
from returnn_lite.ops.frames import Frames
from returnn_lite.ops.linear import added_product, linear
from returnn_lite.tensor import Spec

State = dict[str, Tensor]


@dataclass(frozen=True)
class ParamSpec:
    """One parameter.  `init`: the option that says how it starts ("weights", "recurrent", "bias"), "default" (the
    default initialiser of all weights), a number, or one number for each of the equal blocks of the last axis."""

    name: str
    shape: tuple[int, ...]
    init: str | float | tuple[float, ...] = "default"


@dataclass
class Ahead:
    """The part of the products that a loop knows before its ticks: that of sources which do not depend on them.

    `frames`: for each tick the sums (B, G) so far; `rest`: the numbers of the other sources, and `weights` (…, G) for
    them and h; `spec`: of the output, as soon as it is known.
    """

    frames: tuple[Tensor, ...]
    rest: tuple[int, ...]
    weights: Tensor
    spec: Spec | None = None

    def sums(self, inputs: Sequence[Tensor], h: Tensor, tick: int) -> Tensor:
        """What enters the gates (B, G), with the other sources (B, F)."""
        x = torch.cat([*inputs, h], 1) if inputs else h
        return added_product(self.frames[tick], x, self.weights)


class Weights(dict[str, Tensor]):
    """The arrays that the ticks of one call use, with the call's train flag and random generator."""

    def __init__(self, arrays: Mapping[str, Tensor], training: bool, generator: torch.Generator | None) -> None:
        super().__init__(arrays)
        self.training = training
        self.generator = generator
        self.ahead: Ahead | None = None  # what a loop knows before its ticks


class Cell:
    """A recurrent unit with H = `n_out` units.  It holds options only; parameters and states are passed in.

    `begin_sequence` turns the parameters into `Weights`, which `project` and `step` expect.
    """

    state_keys: tuple[str, ...] = ("c", "h")
    native = False  # has W, W_re, b; can do without input projection
    sparse_input = False  # takes label indices, too
    accepts_initial_state = True
    torch_lstm = False  # torch's LSTM with the weights w_x, w_h, bias that `begin_sequence` gives
    bounded = True  # the state stays finite however many ticks are run

    def __init__(self, n_out: int) -> None:
        self.n_out = n_out

    def params(self, n_in: int, *, input_projection: bool = True) -> list[ParamSpec]:
        """Parameters for D = `n_in` inputs; without input projection the D inputs are the gates' sums themselves."""
        return self._params(n_in) if input_projection else self._bare_params(n_in)

    def _params(self, n_in: int) -> list[ParamSpec]:
        raise NotImplementedError

    def _bare_params(self, n_in: int) -> list[ParamSpec]:
        message = "`input_projection` must be True with a unit that is not a native one, but is False instead"
        raise ConfigError("input_projection", message)

    def begin_sequence(
        self, p: Mapping[str, Tensor], training: bool, generator: torch.Generator | None, *, batch: int | None = None
    ) -> Weights:
        """What is constant over one call.  `batch` (the number of sequences) is needed for masks drawn per sequence."""
        raise NotImplementedError

    def project(self, p: Weights, x: Tensor, *, sparse_grad: bool = False) -> Tensor:
        """Input half of the products: (…, D) -> (…, G)."""
        return project(x, p["w_x"], p["bias"])

    def before_ticks(self, state: State) -> State:
        """A state with what is not seen from outside but goes from `step` to `step`."""
        return state

    def step(self, p: Weights, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """One tick: (B, G) and the state -> output (B, H) and the new state."""
        raise NotImplementedError

    def begin_ticks(
        self, p: Mapping[str, Tensor], training: bool, generator: torch.Generator | None, batch: int
    ) -> Weights:
        """What is constant over many calls of `tick`."""
        return self.begin_sequence(p, training, generator, batch=batch)

    def tick(self, p: Weights, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One tick from its input: (B, D), or (B,) label indices."""
        return self.step(p, self.project(p, x), state)

    def end_tick(self, gates: Tensor, state: State) -> tuple[Tensor, State]:
        """One tick from all that enters its gates (B, G); for cells whose `Weights` have "w", input and h as rows."""
        raise NotImplementedError

    def sequence(
        self,
        p: Mapping[str, Tensor],
        x: Tensor,
        lengths: Tensor | None,
        state: State | None = None,
        *,
        reverse: bool = False,
        training: bool = False,
        generator: torch.Generator | None = None,
        need_state: bool = False,
        sparse_grad: bool = False,
        zero_padded: bool = False,
    ) -> tuple[Tensor, State | None]:
        """All ticks: (T, B, D), or (T, B) label indices -> (T, B, H), zeros in the padding, as in x if `zero_padded`.

        `reverse` starts each sequence at its own last valid frame; the outputs stay at their positions.  With
        `need_state` also the state after the last valid frame processed (the initial state of empty sequences).
        """
        self._check_input(x)
        num_frames, batch = x.shape[:2]
        weights = self.begin_sequence(p, training, generator, batch=batch)
        if state is None:
            dtype = next(iter(p.values())).dtype
            start, is_zero = self.zero_state(batch, x.device, dtype), True
        else:
            start, is_zero = state, False
        if num_frames == 0 or batch == 0:
            return self.project(weights, x)[..., : self.n_out], start if need_state else None
        frames = Frames(lengths, num_frames, reverse=reverse, device=x.device)
        run = Run(frames, is_zero, need_state, sparse_grad)
        out, final = self.run(weights, frames.enter(x, zero_padded=zero_padded), start, run)
        return frames.leave(out), final if need_state else None

    def run(self, p: Weights, x: Tensor, start: State, run: Run) -> tuple[Tensor, State]:
        """All ticks in processing order; `x` has zeros in the padding, what the output has there does not matter.

        Without `run.need_state` the returned state is meaningless.
        """
        frozen: Tensor | None = None
        if run.frames.padding is not None and (run.need_state or not self.bounded):
            frozen = run.frames.padding.unsqueeze(2)  # (T, B, 1)
        state, outputs = start, []
        for tick, projected in enumerate(self.project(p, x, sparse_grad=run.sparse_grad).unbind(0)):
            out, new = self.step(p, projected, state)
            if frozen is not None:
                new = {key: torch.where(frozen[tick], state[key], value) for key, value in new.items()}
            state = new
            outputs.append(out)
        return torch.stack(outputs), state

    def zero_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> State:
        """The state that a sequence starts from: zeros (B, H) per key."""
        zeros = torch.zeros(batch, self.n_out, device=device, dtype=dtype)
        return dict.fromkeys(self.state_keys, zeros)

    def output_of_state(self, state: State) -> Tensor:
        """The part of the state that is the output (B, H)."""
        return state[self.state_keys[-1]]

    def _check_input(self, x: Tensor) -> None:
        if not x.is_floating_point() and not self.sparse_input:
            raise ConfigError("from", f"the input of a {type(self).__name__} must be dense, but is sparse instead")


@dataclass(frozen=True)
class Run:
    """How one call runs: its frames, whether it starts from zeros, what is asked for."""

    frames: Frames
    zero_start: bool
    need_state: bool
    sparse_grad: bool


def project(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x @ weight + bias: (…, D), (D, G), (G,) -> (…, G)."""
    return linear(x, weight.t(), bias)


def sequence_mask(like: Tensor, batch: int | None, size: int, rate: float, generator: torch.Generator | None) -> Tensor:
    """A dropout mask (B, `size`) that stays the same over all ticks."""
    if batch is None:
        raise ValueError("`batch` must be the number of sequences (a mask is drawn for each), but is None instead")
    return dropout_mask(like, (batch, size), rate, generator)


def check_rate(name: str, value: float) -> float:
    """`value`, if it can be a dropout rate, else ConfigError."""
    if not 0 <= value < 1:
        raise ConfigError(name, f"`{name}` must be at least 0 and less than 1, but is {value} instead")
    return value
