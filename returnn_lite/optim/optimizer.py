"""`Optimizer`: what the updater asks of an optimizer, whichever library its formula is from."""

from collections.abc import Callable, Mapping

from torch import Tensor

from returnn_lite.config_value import ConfigOptions
from returnn_lite.optim.state import SavedState, State

# Computes loss and gradients anew for the parameters as they are now.
Evaluate = Callable[[], tuple[Tensor, dict[str, Tensor]]]
MOMENTA = ("momentum", "beta1")
RATE_NAMES = ("lr", "learning_rate", "learn_rate")
DECIDING = (
    *("beta1", "beta2", "eps", "epsilon", "weight_decay", "momentum", "alpha", "rho", "decay", "amsgrad", "L2"),
    *("nesterov", "dampening", "momentum_decay", "decoupled_weight_decay", "maximize", "centered", "lr_decay", "lambd"),
)


class Optimizer:
    """An optimizer of the parameters it is bound to, with its state by parameter name.

    The learning rate comes from outside at every update, unless `own_rate` gives one. State is kept as plain dicts,
    lists, numbers and tensors.
    """

    name: str = ""  # the class, as state files name it
    learning_rate_multiplier: float = 1.0
    group_name: str = ""  # the `name` of its `param_groups` entry
    rate_factor: float = 1.0  # on top of the multiplier; set between epochs
    steered: frozenset[str] = frozenset()  # options that are set between epochs
    learning_rate_absolute: float | None = None  # in place of whatever else says what the learning rate is
    clip_norm: float = 0.0  # of all gradients together; 0: none
    frozen_until: int = 0  # no updates before this epoch
    plateau_score: str = "min"  # whether lower scores are better
    needs_closure: bool = False  # whether `apply_closure` is to be called in place of `apply`

    def bind(self, params: Mapping[str, Tensor]) -> None:
        """Names the parameters; once, before anything else."""

    def start_epoch(self, epoch: int, score: float | None) -> None:
        """Tells the epoch (from 1) whose updates follow, and the score of the one before, if it has one."""

    def own_rate(self) -> float | None:
        """The learning rate of the next update where the optimizer has a schedule of its own for it."""
        return None

    def rate(self, base: float) -> float:
        """The learning rate of these parameters, from the one of the run."""
        if self.learning_rate_absolute is not None:
            return self.learning_rate_absolute
        return base * self.learning_rate_multiplier * self.rate_factor

    def options(self) -> ConfigOptions:
        """The hyper-parameters now in force, without the learning rate."""
        return {}

    def set_option(self, name: str, value: float) -> None:
        """Changes a hyper-parameter from the next update on."""
        raise KeyError(name)

    @property
    def momentum_option(self) -> str | None:
        """The option that says how much of earlier gradients stays, if there is one without a schedule."""
        found, scheduled = self.options(), self.scheduled()
        names = [name for name in MOMENTA if isinstance(found.get(name), int | float) and name not in scheduled]
        return names[0] if names else None

    def apply(self, params: Mapping[str, Tensor], grads: Mapping[str, Tensor], lr: float) -> None:
        """One update of the parameters that have a gradient: a dense one, or a sparse COO tensor of rows."""
        raise NotImplementedError(f"{type(self).__name__}.apply")

    def apply_closure(self, params: Mapping[str, Tensor], evaluate: Evaluate, lr: float) -> None:
        """One update for which loss and gradients may be computed several times."""
        raise NotImplementedError(f"{type(self).__name__}.apply_closure")

    def skip(self) -> None:
        """Counts an update without making it."""

    def scheduled(self) -> dict[str, float]:
        """The numbers with a schedule, but for the learning rate, as the next update has them."""
        return {}

    def averages(self) -> dict[str, Tensor]:
        """Averaged parameters, where the optimizer keeps some."""
        return {}

    def position(self) -> State:
        """Where the schedules are; a reset does not change that."""
        return {}

    def load_position(self, position: SavedState) -> None:
        """Takes over `position`."""

    def reset(self) -> None:
        """Forgets all state: the next update is the first. Schedules go on."""
        raise NotImplementedError(f"{type(self).__name__}.reset")

    def state_dict(self) -> State:
        """The state, with "class": the name."""
        raise NotImplementedError(f"{type(self).__name__}.state_dict")

    def load_state_dict(self, state: SavedState, params: Mapping[str, Tensor]) -> list[str]:
        """Takes over what fits the parameters; returns the names of those whose state starts anew."""
        raise NotImplementedError(f"{type(self).__name__}.load_state_dict")


def best_match(key: str, rule: str, own: Mapping[str, Tensor], saved: Mapping[str, SavedState]) -> SavedState | None:
    """The saved optimizer of this class with the same options; else the one with most of the parameters, if any."""
    fitting = {other: state for other, state in saved.items() if state["class"] == rule}
    if key in fitting:
        return fitting[key]
    common = {other: len(own.keys() & set(state["params"])) for other, state in fitting.items()}
    best = max(common, key=common.__getitem__, default=None)
    return fitting[best] if best is not None and common[best] else None


def fixed_options(optimizer: Optimizer) -> ConfigOptions:
    """The numbers that decide what an update does, but for those that change in the course of a training."""
    changing = {*optimizer.scheduled(), *optimizer.steered}
    found = {key: value for key, value in optimizer.options().items() if key not in changing}
    return {key: value for key, value in found.items() if key in DECIDING and isinstance(value, int | float)}


def changed_options(optimizer: Optimizer, saved: SavedState) -> list[str]:
    """A line for each option that the config says otherwise than a saved state: the config's counts."""
    before, now = saved.get("options", {}), fixed_options(optimizer)
    changed = {key: (before[key], now[key]) for key in before.keys() & now.keys() if before[key] != now[key]}
    return [
        f"note: optimizer {optimizer.name}: {key} is {new} as the config says, not {old} as in the saved state"
        for key, (old, new) in sorted(changed.items())
    ]
