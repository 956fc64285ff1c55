"""Which training steps are recorded and repeated: `torch_cuda_graph`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch

from returnn_lite.config import Config
from returnn_lite.engine.batch_like import Padded
from returnn_lite.engine.graphs.captured import Recorder
from returnn_lite.engine.graphs.net_step import NetStep, NetStepInParts, StepValues, Tensors
from returnn_lite.engine.graphs.shapes import BatchShape, Padding, batch_shape, padded_shape
from returnn_lite.engine.models.model import Model, ModelOutput
from returnn_lite.engine.step import Forward, by_itself
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.network import Network
from returnn_lite.network.network import NetworkOutput
from returnn_lite.optim.gradients import global_norm, value_of

OPTION = "torch_cuda_graph"
TOLERANCE, CHANCE = 0.03, 0.8  # of the first recorded step, relative: rounding of half precision; other random numbers
KEPT = 64  # recorded steps at most


class Repeats(Protocol):
    """A recorded step."""

    def repeat(self, data: Mapping[str, torch.Tensor], lengths: Mapping[str, torch.Tensor]) -> StepValues:
        """The step for this batch."""
        ...


class Records(Protocol):
    """What records steps."""

    def record(self, shape: BatchShape, step: NetStep) -> Repeats:
        """The step for batches of this shape."""
        ...


class RepeatedSteps:
    """A `Forward` that records the training steps of a layer net by the shape of their batches, and repeats them.

    A step of a shape is recorded when it comes for the second time. Where there are more than `exact` shapes batches
    are padded to fewer, as far as the net allows. At most `kept` steps are kept; another one takes the place of the
    rarest if it has come twice as often, since to record a step costs more than to run it. All steps of a net run as
    usual where something in it must be done anew at each step: the log says what. The outputs of layers are not there.
    """

    def __init__(
        self,
        log: Log,
        recorder: Callable[[Network], Records],
        *,
        probing: Callable[[], AbstractContextManager[object]],
        kept: int = KEPT,
        exact: int = KEPT // 2,
    ) -> None:
        self.log, self.make_recorder, self.probing, self.kept, self.exact = log, recorder, probing, kept, exact
        self.net: Model | None = None
        self._begin(None)

    def _begin(self, net: Model | None) -> None:
        """Forgets all steps: they were those of another network."""
        self.net = net
        self.steps: dict[BatchShape, Repeats] = {}
        self.seen: Counter[BatchShape] = Counter()
        self.shapes: set[BatchShape] = set()
        self.places: list[int] = []
        self.refused = self.checked = False
        self.step: NetStep | None = None
        self.recorder: Records | None = None

    def __call__(self, net: Model, data: dict[str, Padded], lengths: Tensors, tags: list[str]) -> ModelOutput:
        """What the network gives for the batch, and the gradients."""
        if not (net.training and torch.is_grad_enabled()) or not isinstance(net, Network):
            return by_itself(net, data, lengths, tags)
        self._follow(net)
        texts = any(key in net.used_data_keys and not isinstance(x, torch.Tensor) for key, x in data.items())
        if self.refused or texts or any(0 in x.shape for x in data.values() if isinstance(x, torch.Tensor)):
            return by_itself(net, data, lengths, tags)
        tensors = {key: x for key, x in data.items() if key in net.used_data_keys and isinstance(x, torch.Tensor)}
        known = {key: n for key, n in lengths.items() if key.split(":")[0] in tensors}
        shape = self._shape(net, batch_shape(tensors, known))
        self.seen[shape] += 1
        if shape not in self.steps:
            if sum(self.seen.values()) == 2 and not self._runs_unattended(net, tensors, known):
                return by_itself(net, data, lengths, tags)
            if self.seen[shape] < 2 or not self._record(shape):
                return self._usual(net, data, tensors, known, tags)
        wanted = None if self.checked else self._expected(tensors, known)
        try:
            made = self.steps[shape].repeat(tensors, known)
        except (ConfigError, RuntimeError) as exc:
            if isinstance(exc, torch.OutOfMemoryError):
                raise
            self._refuse(first_line(exc))
            return by_itself(net, data, lengths, tags)
        if wanted is not None:
            made = self._checked(made, *wanted)
        return NetworkOutput({}, net.program.names, made.losses, made.objective, made.gradients)

    def _expected(self, data: Tensors, lengths: Tensors) -> tuple[StepValues, float] | None:
        """What the usual step gives, for the first recorded one of a network, and how far that may be: where random
        numbers are drawn they may be others."""
        self.checked = True
        if self.step is None:
            return None
        with unchanged(self.step.net) as moved:
            found = NetStep(self.step.net).values(data, lengths)
            chance = moved()
        return found, CHANCE if chance else TOLERANCE

    def _checked(self, made: StepValues, wanted: StepValues, tolerance: float) -> StepValues:
        """What a recorded step gives, if it is near to what the usual one gives."""
        if is_near(made, wanted, tolerance):
            return made
        self._refuse(f"one has given the loss {float(made.objective)} instead of {float(wanted.objective)}")
        return wanted

    def _usual(
        self, net: Network, data: dict[str, Padded], tensors: Tensors, lengths: Tensors, tags: list[str]
    ) -> ModelOutput:
        """A step that is not recorded; where the recorded ones leave it too little memory they are given up."""
        if not self.steps:
            return by_itself(net, data, lengths, tags)
        try:
            made = NetStep(net).values(tensors, lengths)
        except torch.OutOfMemoryError:
            self._refuse("they leave too little memory for other data")
            torch.cuda.empty_cache()
            return by_itself(net, data, lengths, tags)
        return NetworkOutput({}, net.program.names, made.losses, made.objective, made.gradients)

    def _follow(self, net: Network) -> None:
        """Starts anew with another network, or where its parameters have moved."""
        places = [param.data_ptr() for param in net.params.values()]
        if net is self.net and places == self.places:
            return
        self._begin(net)
        self.places, self.padding = places, Padding.of(net)
        reasons = stays_eager(net)
        if reasons:
            self._refuse(", ".join(reasons))

    def _shape(self, net: Network, exact: BatchShape) -> BatchShape:
        """The shape of the step for batches of this shape."""
        if len(self.shapes) <= self.exact:
            self.shapes.add(exact)
        if len(self.shapes) <= self.exact or exact in self.steps:
            return exact
        return padded_shape(exact, {key: net.extern_data.spec(key) for key, *_ in exact.data}, self.padding)

    def _refuse(self, reason: str) -> None:
        self.refused = True
        self.steps.clear()
        self.recorder = None
        self.log.v3(f"{OPTION}: the steps of this network are not recorded: {reason}")

    def _runs_unattended(self, net: Network, data: Tensors, lengths: Tensors) -> bool:
        """Tries a step: whether the CPU has nothing to wait for, in the losses or at least in the layers."""
        for kind in (NetStep, NetStepInParts):
            step = kind(net)
            try:
                with unchanged(net):
                    step.tried(data, lengths, self.probing)
            except (ConfigError, RuntimeError) as exc:
                if isinstance(exc, torch.OutOfMemoryError):
                    raise
                reason = first_line(exc)
            else:
                self.step = step
                break
        if self.step is None:
            self._refuse(reason)
        elif isinstance(self.step, NetStepInParts):
            self.log.v3(f"{OPTION}: the losses are not recorded: {reason}")
        return self.step is not None

    def _makes_room(self, shape: BatchShape) -> bool:
        """Whether one more step can be kept."""
        if len(self.steps) < self.kept:
            return True
        rarest = min(self.steps, key=self.seen.__getitem__)
        if self.seen[shape] <= 2 * self.seen[rarest]:
            return False
        del self.steps[rarest]
        return True

    def _record(self, shape: BatchShape) -> bool:
        """Records the step of a shape; whether that has worked."""
        if self.step is None or not self._makes_room(shape):
            return False
        try:
            if self.recorder is None:
                self.recorder = self.make_recorder(self.step.net)
            several = self.padding.sequences and len(self.shapes) > self.exact  # batches of different sizes
            step = NetStepInParts(self.step.net) if several else self.step
            self.steps[shape] = self.recorder.record(shape, step)
        except (ConfigError, RuntimeError) as exc:
            self._refuse(first_line(exc))
            return False
        self.log.v4(f"{OPTION}: recorded a step for {', '.join(f'{k} {list(n)}' for k, n, _ in shape.data)}")
        return True


@contextmanager
def unchanged(net: Network) -> Iterator[Callable[[], bool]]:
    """Runs of a network in this context leave no trace; gives what says whether random numbers were drawn in it."""
    state = net.random_state
    counted = [param for param in net.params.values() if not param.requires_grad]
    before = [param.detach().clone() for param in counted]
    try:
        yield lambda: not torch.equal(net.random_state, state)
    finally:
        net.random_state = state
        with torch.no_grad():
            for param, value in zip(counted, before, strict=True):
                param.copy_(value)


def is_near(a: StepValues, b: StepValues, tolerance: float) -> bool:
    """Whether loss and norm of the gradients of `a` are within this share of those of `b`; waits for the GPU."""
    norms = [global_norm([value_of(grad) for grad in x.gradients.values()], like=x.objective) for x in (a, b)]
    pairs = ((a.objective, b.objective), (norms[0], norms[1]))
    close = all(torch.allclose(x.float(), y.float(), rtol=tolerance, atol=1e-6, equal_nan=True) for x, y in pairs)
    return close and a.gradients.keys() == b.gradients.keys()


def first_line(exc: Exception) -> str:
    """The first line of an error's text."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]


def repeated_steps(config: Config, log: Log, device: torch.device) -> Forward:
    """The `Forward` of trainings on this device, as `torch_cuda_graph` says: True, False (the default), or the number
    of steps to keep."""
    given = config.typed_value(OPTION, False)
    if isinstance(given, bool | int) and given >= 0:
        if device.type != "cuda" or not given:
            return by_itself
        kept = KEPT if given is True else given
        return RepeatedSteps(
            log,
            lambda net: Recorder.with_room(device, lambda: [net.context.generator]),
            probing=no_waiting,
            kept=kept,
        )
    raise ConfigError(OPTION, f"must be True, False or the number of steps to keep, but is {given!r} instead")


@contextmanager
def no_waiting() -> Iterator[None]:
    """Whatever makes the CPU wait for the GPU is an error."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def stays_eager(net: Network) -> list[str]:
    """Why steps of a network cannot be recorded, a text each; none for most networks."""
    found = [f"layer {layer.path} {why}" for layer in net.program.layers if (why := layer.differs_by_step)]
    if net.program.recomputed:
        found.append("`grad_checkpoint` computes parts of it again")
    if net.program.compiled is not None:
        found.append("`torch_compile` compiles layers of it")
    for loss in net.loss_nodes:
        if callable(loss.common.custom_norm_factor):
            found.append(f"{loss.path} has a function as `custom_norm_factor`")
    return found
