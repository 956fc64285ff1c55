"""`lr_scheduler`: a scheduler of torch.optim says the learning rate of every step or epoch, group by group."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log
from returnn_lite.optim.optimizer import Optimizer
from returnn_lite.optim.scheduler_proxy import PER_STEP, SchedulerProxy, Values, scheduler_class
from returnn_lite.optim.state import SavedState, State

OPTION = "lr_scheduler"
MODES = ("replace", "multiply")
OWN_KEYS = ("interval", "measure", "mode_with_control", "start_epoch", "every")
TOTALS = ("total_steps", "total_iters", "T_max")  # options that may be "auto"
Count = Callable[[int], int]  # first epoch -> the number of updates from there to the end of the run


class LRScheduler:
    """The scheduler with its place in the run: value t counts in the t-th step, or epoch, from `start_epoch` on.

    mode "replace": the scheduler says the learning rate; "multiply": it says a factor on that of the epoch. `measure`:
    the score that ReduceLROnPlateau waits for (default: the one that drives the learning rate control).
    """

    def __init__(
        self,
        value: ConfigValue,
        groups: Sequence[Values],
        log: Log,
        *,
        num_epochs: int = 0,
        count_updates: Count | None = None,
    ) -> None:
        own, options = _split(value)
        self.log, self.described = log, repr(value)
        self.mode = own.get("mode_with_control", "replace")
        self.per_step = own["interval"] == "step"
        self.start_epoch, self.every = int(own.get("start_epoch", 1)), int(own.get("every", 1))
        self.measure: str | None = own.get("measure")
        self.total: int | None = None  # what stands for "auto"
        if isinstance(options, dict):
            options = self._with_total(options, num_epochs, count_updates)
        else:
            options = [self._with_total(part, num_epochs, count_updates) for part in options]
        self.options, self.groups = options, groups
        self.proxy = self.new_proxy()
        if self.proxy.needs_metric and self.per_step:
            raise ConfigError(f'{OPTION}["interval"]', 'ReduceLROnPlateau must have "epoch", but has "step" instead')
        self.intervals = 0  # done since start_epoch
        self.epoch = 0  # the one begun last
        self.surplus = 0  # intervals done behind the last value
        self.current = self.proxy.values()

    def new_proxy(self) -> SchedulerProxy:
        """The torch scheduler as it begins."""
        return SchedulerProxy(self.options, self.groups, OPTION)

    def _with_total(self, options: ConfigOptions, num_epochs: int, count_updates: Count | None) -> ConfigOptions:
        """With numbers for "auto" (of the whole run), and OneCycleLR's `total_steps` where it need not be said."""
        auto = [key for key in TOTALS if options.get(key) == "auto"]
        if scheduler_class(options["class"], OPTION).__name__ == "OneCycleLR" and not auto:
            if options.get("total_steps") is None and "epochs" not in options:
                if self.per_step:
                    text = 'must be the number of updates of the whole run, or "auto" to count them, but is missing'
                    raise ConfigError(f'{OPTION}["total_steps"]', text)
                auto = ["total_steps"]
        if not auto:
            return options
        path = f'{OPTION}["{auto[0]}"]'
        if count_updates is None or not num_epochs:
            raise ConfigError(path, '"auto" needs `num_epochs` and a data set whose batches can be counted')
        intervals = count_updates(self.start_epoch) if self.per_step else num_epochs - self.start_epoch + 1
        self.total = -(-intervals // self.every)
        if self.total < 1:
            text = f'"auto" must count one update at least, but {num_epochs} epochs have none'
            raise ConfigError(path, f"{text} (see accum_grad_multiple_step, num_epochs, start_epoch)")
        return {**options, **dict.fromkeys(auto, self.total)}

    @property
    def started(self) -> bool:
        """Whether the scheduler is in force."""
        return self.epoch >= self.start_epoch

    def start(self, epoch: int, score: float | None) -> None:
        """Begins an epoch; `score` is what the one before reached. Begun again, an epoch changes nothing."""
        if not self.per_step and epoch > self.epoch >= self.start_epoch:
            self._interval(score)
        self.epoch = epoch

    def after_update(self) -> None:
        """Ends a step that changed the parameters."""
        if self.per_step and self.started:
            self._interval(None)

    def _interval(self, score: float | None) -> None:
        self.intervals += 1
        if self.intervals % self.every or (self.proxy.needs_metric and score is None):
            return
        if not self.proxy.step(score):
            self.surplus += 1
            if self.surplus == 2:  # an interval was begun without a value of its own
                self.log.v2(f"Warning: {OPTION}: all {self.proxy.end} values are used up; the last one is kept.")
        self.current = self.proxy.values()

    def values(self) -> list[Values]:
        """What is in force now, by group."""
        return self.current

    def state_dict(self) -> State:
        """What a resumed run needs."""
        own = {"options": self.described, "intervals": self.intervals, "epoch": self.epoch, "total": self.total}
        return {**own, "shadow": self.proxy.state_dict()}

    def load_state_dict(self, state: SavedState) -> None:
        """Goes on where the saved one was; a scheduler with other options is stepped as often as that one was."""
        self.intervals, self.epoch = state["intervals"], state["epoch"]
        self.proxy, saved = self.new_proxy(), state["shadow"]
        total = state.get("total", saved["scheduler"].get("total_steps")) if self.total else None
        if len(saved["groups"]) != len(self.proxy.groups) or not _same(state["options"], self.described):
            self._start_anew("has changed")
        elif total != self.total:
            self._start_anew(f'has changed ("auto" is {self.total} now, and was {total} before)')
        else:
            self.proxy.load_state_dict(saved)
        self.current = self.proxy.values()

    def _start_anew(self, why: str) -> None:
        self.log.v2(f"Warning: {OPTION} {why}; the new one starts after {self.intervals} intervals.")
        self._forward()

    def _forward(self) -> None:
        for _ in range(self.intervals // self.every):
            if self.proxy.needs_metric or not self.proxy.step():
                return


def _same(a: str, b: str) -> bool:
    """Whether two descriptions are equal but for the addresses of functions."""
    return _without_addresses(a) == _without_addresses(b)


def _without_addresses(text: str) -> str:
    parts = text.split(" at 0x")
    return "".join([parts[0], *(part.partition(">")[2] for part in parts[1:])])


def _split(value: ConfigValue) -> tuple[ConfigOptions, Any]:
    """(our keys, what torch gets) of the option; a list of dicts is chained, and takes our keys from the first."""
    entries = list(value) if isinstance(value, list | tuple) else [value]
    if not entries or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError(OPTION, f"must be a dict or a list of dicts, but is {value!r} instead")
    own: ConfigOptions = {}
    for entry in reversed(entries):
        own.update((key, entry[key]) for key in OWN_KEYS if key in entry)
    rest = [{key: item for key, item in entry.items() if key not in OWN_KEYS} for entry in entries]
    if "class" not in rest[0]:
        raise ConfigError(OPTION, f'must have "class", but is {value!r} instead')
    names = [scheduler_class(entry.get("class"), f'{OPTION}["class"]').__name__ for entry in rest]
    own.setdefault("interval", "step" if names[0] in PER_STEP else "epoch")
    for key, choices in (("interval", ("step", "epoch")), ("mode_with_control", MODES)):
        if own.get(key, choices[0]) not in choices:
            wanted, hint = " or ".join(f'"{choice}"' for choice in choices), did_you_mean(str(own[key]), choices)
            raise ConfigError(f'{OPTION}["{key}"]', f"must be {wanted}, but is {own[key]!r} instead{hint}")
    for key in ("start_epoch", "every"):
        if not isinstance(own.get(key, 1), int) or own.get(key, 1) < 1:
            raise ConfigError(f'{OPTION}["{key}"]', f"must be a whole number from 1 on, but is {own[key]!r} instead")
    return own, rest if isinstance(value, list | tuple) else rest[0]


def group_values(optimizers: Sequence[Optimizer], learning_rate: float | None) -> list[Values]:
    """The groups as a scheduler sees them at the start; without a learning rate it says factors, from 1 on."""
    found: list[Values] = []
    for optimizer in optimizers:
        options = optimizer.options()
        momentum: Values = {name: float(options[name]) for name in ("beta1", "momentum") if name in options}
        if len(momentum) == 2:
            del momentum["momentum"]
        found.append({"lr": 1.0 if learning_rate is None else optimizer.rate(learning_rate), **momentum})
    return found


def make_lr_scheduler(
    config: Config, optimizers: Sequence[Optimizer], log: Log, *, count_updates: Count | None = None
) -> LRScheduler | None:
    """The config's `lr_scheduler`, None if there is none. ConfigError if something else says the learning rate, too."""
    owner = next((optimizer for optimizer in optimizers if optimizer.own_rate() is not None), None)
    if owner is not None:
        _refuse_others(config, f"the schedule of the learning rate in `optimizer` ({owner.name})")
    value = config.literal(OPTION, None)
    if not value:
        return None
    learning_rate = config.float("learning_rate", 1.0) or 1.0
    multiply = _split(value)[0].get("mode_with_control") == "multiply"
    if owner is not None and not multiply:
        raise ConfigError(OPTION, f"sets the learning rate, but so does the optimizer {owner.name}; drop one")
    if not multiply:
        _refuse_others(config, f'{OPTION} (use {OPTION}["mode_with_control"] = "multiply" or drop one)')
    groups, epochs = group_values(optimizers, None if multiply else learning_rate), config.int("num_epochs", 5) or 0
    made = LRScheduler(value, groups, log, num_epochs=epochs, count_updates=count_updates)
    if made.proxy.cycles_momentum and any(group.get("momentum") == 0 for group in groups):
        log.v2(f'note: {OPTION} turns on the optimizer\'s momentum, which is 0 ("cycle_momentum": False leaves it).')
    return made


def _refuse_others(config: Config, owner: str) -> None:
    control = config.value("learning_rate_control", "constant")
    if control != "constant":
        raise ConfigError("learning_rate_control", f'"{control}" sets the learning rate, but so does {owner}')
    if config.typed_value("learning_rates") or config.has("learning_rates") and config.value("learning_rates", ""):
        raise ConfigError("learning_rates", f"sets the learning rate, but so does {owner}")
