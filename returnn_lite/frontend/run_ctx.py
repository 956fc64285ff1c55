"""The run context: where `train_step` and `forward_step` leave their losses and outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from returnn_lite.errors import did_you_mean
from returnn_lite.frontend.const import convert_to_tensor
from returnn_lite.frontend.current import current
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.loss import Loss, as_loss
from returnn_lite.frontend.outputs import Dims, check_output, named, ordered, plain_axes, with_roles
from returnn_lite.frontend.tensor import Tensor, TensorLike
from returnn_lite.frontend.tensor_dict import TensorDict
from returnn_lite.frontend.types import UserFunction

RUNNING: ContextVar[RunContext | None] = ContextVar("run context", default=None)
STAGES = ("init", "train_step", "forward_step")


class RunContext:
    """One call of a function of the config, `stage`: "init" (`get_model`), "train_step" or "forward_step".

    `step`: training steps so far. `expected_outputs`: what `model_outputs` declares. `losses`, `outputs`: what was
    marked so far.
    """

    def __init__(
        self,
        stage: str,
        epoch: int = 1,
        step: int = 0,
        train_flag: bool = False,
        expected_outputs: TensorDict | None = None,
    ) -> None:
        self.stage, self.epoch, self.step = stage, epoch, step
        self.expected_outputs = expected_outputs
        self.losses: dict[str, Loss] = {}
        self.outputs = TensorDict()
        self._train_flag = train_flag
        self._function_flags: dict[Any, list[bool]] = {}

    def __repr__(self) -> str:
        return f"<RunContext {self.stage}, epoch {self.epoch}, step {self.step}>"

    @contextmanager
    def running(self) -> Iterator[RunContext]:
        """While open, `get_run_ctx()` gives this context."""
        token = RUNNING.set(self)
        try:
            yield self
        finally:
            RUNNING.reset(token)

    # --- train flag ---------------------------------------------------------------------------------------------------

    @property
    def train_flag(self) -> bool:
        """Whether this is training, not evaluation."""
        return self._train_flag

    @contextmanager
    def train_flag_ctx(
        self, train_flag: bool, func: UserFunction | Collection[UserFunction] | None = None
    ) -> Iterator[None]:
        """While open, the train flag is this one; with `func` (one or a list) only for these functions."""
        functions = [] if func is None else list(func) if isinstance(func, list | tuple | set) else [func]
        before = self._train_flag
        for function in functions:
            self._function_flags.setdefault(_plain(function), []).append(train_flag)
        if func is None:
            self._train_flag = train_flag
        try:
            yield
        finally:
            self._train_flag = before
            for function in functions:
                self._function_flags[_plain(function)].pop()

    def is_train_flag_enabled(self, *, func: UserFunction) -> bool:
        """The train flag for a function."""
        own = self._function_flags.get(_plain(func))
        return own[-1] if own else self._train_flag

    def get_step_tensor(self) -> Tensor:
        """The step as a scalar."""
        return convert_to_tensor(self.step, dtype="int32")

    def get_epoch_tensor(self) -> Tensor:
        """The epoch as a scalar."""
        return convert_to_tensor(self.epoch, dtype="int32")

    # --- losses -------------------------------------------------------------------------------------------------------

    def mark_as_loss(
        self,
        loss: TensorLike,
        name: str,
        *,
        dims: Dims | None = None,
        scale: float = 1.0,
        as_error: bool = False,
        use_normalized_loss: bool = False,
        use_flatten_frames: bool = True,
        custom_inv_norm_factor: TensorLike | None = None,
    ) -> None:
        """Adds a loss: `scale` times its sum goes into the objective, reported is the sum by the number of entries.

        loss: a Tensor, or a number or torch tensor with the axes `dims`; entries in the padding of its axes do not
        count. as_error: only reported. use_normalized_loss: what is reported goes into the objective.
        custom_inv_norm_factor: what to divide by in place of the number of entries, such as the number of labels.
        """
        self._expect_stage("mark_as_loss", "train_step")
        _check_name(name, "a loss")
        if not isinstance(scale, int | float):
            scale = _number(scale, name)
        if name in self.losses:
            raise WrongUse(f"train_step: loss {name!r} is marked twice; the names must differ")
        value = as_loss(named(loss, dims, f"loss {name!r}"))
        factor = (
            None if custom_inv_norm_factor is None else named(custom_inv_norm_factor, None, "custom_inv_norm_factor")
        )
        self._check_sizes(value.dims)
        self.losses[name] = Loss(value, name, scale, as_error, use_normalized_loss, use_flatten_frames, factor)

    def total_loss(self) -> Tensor:
        """The sum of all losses that are minimized. ConfigError if there is none."""
        counting = [loss for loss in self.losses.values() if loss.scale != 0 and not loss.as_error]
        if not counting:
            text = "must mark a loss to train by: get_run_ctx().mark_as_loss(loss, name)"
            raise WrongUse(text, self.stage)
        total = counting[0].get_scaled_reduced_loss()
        for loss in counting[1:]:
            total = total + loss.get_scaled_reduced_loss()
        return total

    # --- outputs ------------------------------------------------------------------------------------------------------

    def mark_as_default_output(self, tensor: TensorLike, shape: Dims | None = None) -> None:
        """`mark_as_output` under the name "output"."""
        self.mark_as_output(tensor, "output", dims=shape)

    def mark_as_output(
        self, tensor: TensorLike, name: str, *, dims: Dims | None = None, shape: Dims | None = None
    ) -> None:
        """Adds an output. Its axes: `dims` (or `shape`), else those in `model_outputs`, else those of a Tensor.

        A torch tensor without any of these has the batch axis in front, and no padding.
        """
        self._expect_stage("mark_as_output", "forward_step")
        _check_name(name, "an output")
        if name in self.outputs:
            raise WrongUse(f"forward_step: output {name!r} is marked twice; the names must differ")
        expected = self._expected(name)
        wanted = dims if dims is not None else shape
        if not isinstance(tensor, Tensor):
            given = wanted if wanted is not None else plain_axes(tensor, name) if expected is None else expected.dims
            value = with_roles(named(tensor, given, f"output {name!r}"), expected)
        else:
            value = ordered(tensor, wanted, expected, name)
        if expected is not None:
            check_output(name, value, expected, strict=isinstance(tensor, Tensor))
        self._check_sizes(value.dims)
        self.outputs.data[name] = value.copy(name)

    def _expected(self, name: str) -> Tensor | None:
        if self.expected_outputs is None:
            return None
        if name not in self.expected_outputs:
            known = list(self.expected_outputs.data)
            text = f"output {name!r} is not declared in `model_outputs`{did_you_mean(name, known)}; known: {known}"
            raise WrongUse(f"forward_step: {text}")
        return self.expected_outputs[name]

    def check_outputs_complete(self) -> None:
        """ConfigError if an output that `model_outputs` declares was not marked."""
        missing = [name for name in (self.expected_outputs or TensorDict()).data if name not in self.outputs]
        if missing:
            text = f"must mark the outputs {', '.join(map(repr, missing))} that `model_outputs` declares"
            raise WrongUse(text, "forward_step")

    # --- both ---------------------------------------------------------------------------------------------------------

    def _check_sizes(self, dims: Sequence[Dim]) -> None:
        for dim in dims:
            if not dim.is_batch_dim() and not dim.is_dim_known_in_batch():
                hint = "make it by Dim(lengths, name=…), or set its `dyn_size_ext`"
                raise WrongUse(f"{self.stage}: the lengths of axis {dim.name} are not known; {hint}")

    def _expect_stage(self, method: str, stage: str) -> None:
        if self.stage != stage:
            function = "get_model" if self.stage == "init" else self.stage
            raise WrongUse(f"{function}: {method} must be called in `{stage}`, but is in `{function}` instead")


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str):
        raise WrongUse(f"the name of {what} must be a text, but is {name!r} instead")


def _number(scale: Any, name: str) -> float:
    """A scalar as a number."""
    raw = scale.raw_tensor if isinstance(scale, Tensor) else scale
    try:
        return float(raw.item())
    except (AttributeError, TypeError, ValueError, RuntimeError):
        raise WrongUse(f"`scale` of loss {name!r} must be a number, but is {scale!r} instead") from None


def _plain(function: Any) -> Any:
    return getattr(function, "__func__", function)


def get_run_ctx() -> RunContext:
    """The context of the step that runs; outside of steps one of the stage "init"."""
    found = RUNNING.get()
    if found is None:
        found = RunContext("init")
        RUNNING.set(found)
    return found


def init_train_step_run_ctx(*, train_flag: bool = True, step: int = 0, epoch: int = 1) -> None:
    """From now on a training step runs (evaluation without the flag)."""
    RUNNING.set(RunContext("train_step", epoch, step, train_flag))


def init_forward_step_run_ctx(*, expected_outputs: TensorDict | None = None, step: int = 0, epoch: int = 1) -> None:
    """From now on a forward step runs."""
    RUNNING.set(RunContext("forward_step", epoch, step, False, expected_outputs))


def get_run_ctx_step() -> Tensor:
    """The training steps so far, a scalar."""
    return get_run_ctx().get_step_tensor()


RunCtx = RunContext
current.append(get_run_ctx)
