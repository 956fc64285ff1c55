"""`lr_agent`: how an agent that chooses learning rates sees, acts, is rewarded and trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigDict, ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean

KEY = "lr_agent"
RATE, MOMENTUM, GROUP = "rate", "momentum", "group:"  # what agents act on; GROUP and the name of a group
CHOICES: dict[str, tuple[str, ...]] = {
    "mode": ("practical", "paper"),
    "vec": ("auto", "lockstep", "subproc", "dummy"),
    "observation": ("dynamics", "scale_free", "paper", "fixed"),
    "action": ("step", "linear", "log"),
    "reward": ("log", "paper", "loss"),
    "grad_norm": ("last", "mean"),
    "on_divergence": ("stop", "rollback"),
}

# As published; its PPO is that of the package, with its defaults.
PAPER: ConfigOptions = {
    "observation": "paper",
    "action": "linear",
    "reward": "paper",
    "divergence_penalty": (1000.0, 1000.0),
    "optimizer": {"class": "gradientdescent"},
    "range_test": False,
    "vary_start": 1.0,
    "vary_init": 1.0,
    "vary_input": 1.0,
    "rolls_back": False,
    "on_divergence": "stop",
    "budget": 10000,
    "num_envs": 16,
}
PRACTICAL_PPO = {"gamma": 1.0, "log_std_init": -1.0}


@dataclass(frozen=True)
class AgentOptions:
    """All keys of `lr_agent`, with the defaults of mode "practical".

    Learning rates: `lr_range` bounds those of the actions "linear" and "log"; "step" changes the last one by
    `action_step` decades at most, from `top`/`start` on (None: 10 with SGD and the like, else 30), down to 1/`lowest`
    and up to `highest` times that. `top` is what the range test finds: `range_test_runs` trainings
    (None: 9 before an agent's training, 3 in use) of `range_test_epochs` epochs with a rate that rises over
    `range_test_rates`. In training, episodes differ: in the
    first learning rate by up to `vary_start` times more or less, in the size of initial values by `vary_init`, in that
    of features by `vary_input`; an epoch that diverges is taken back if `rolls_back`, with a tenth of the learning
    rate and the reward -`rollback_penalty`. `divergence_penalty`, without that: None: the score counts as four times
    the initial one; a number p: -p; (a, b): -(a + b u), u uniform in [0, 1). `budget`: epochs, over all environments;
    `budget_updates`: a further limit. `acts_on`: what the numbers of an action set, the learning rate first; see
    levers.py for those after it, which stay within `momentum_range` and within `group_range` times more or less.
    """

    mode: str = "practical"
    num_epochs: int | None = None
    budget: int = 10240
    budget_updates: int | None = None
    num_envs: int = 16
    vec: str = "auto"
    observation: str = "dynamics"
    normalize: bool = False
    lr_range: tuple[float, float] = (1e-6, 1.0)
    acts_on: Sequence[str] = (RATE,)
    momentum_range: Sequence[float] = (0.0, 0.99)
    momentum_step: float = 0.25
    group_range: float = 10.0
    group_step: float = 0.25
    action: str = "step"
    action_step: float = 0.5
    start: float | None = None
    lowest: float = 1000.0
    highest: float = 100.0
    vary_start: float = 10.0
    vary_init: float = 1.4
    vary_input: float = 2.0
    rolls_back: bool = True
    rollback_penalty: float = 0.1
    range_test: bool = True
    range_test_runs: int | None = None
    range_test_epochs: int = 5
    range_test_rates: tuple[float, float] | None = None
    reward: str = "log"
    gamma_loss: float = 10.0
    lambda_epochs: float = 1.0
    divergence_penalty: ConfigValue = None
    agent_lr: float = 1e-3
    ppo: ConfigDict = field(default_factory=dict)
    seed: int | None = None
    measure: str | None = None
    optimizer: ConfigValue = "config"
    grad_norm: str = "last"
    save_every: int = 1
    keep_checkpoints: bool = False
    log: str | None = None
    deterministic: bool = True
    on_divergence: str = "rollback"
    max_lr_from_config: bool = False
    allow_other_optimizer: bool = False

    @classmethod
    def from_config(cls, config: Config) -> AgentOptions:
        """The config's `lr_agent` over the defaults of its mode. ConfigError for anything unknown."""
        given = config.literal(KEY, None) or {}
        if not isinstance(given, Mapping):
            raise ConfigError(KEY, f"`{KEY}` must be a dict, but is {given!r} instead")
        return cls.from_dict(given)

    @classmethod
    def from_dict(cls, given: ConfigDict) -> AgentOptions:
        """The same from the dict itself."""
        known = [f.name for f in fields(cls)]
        for key in given:
            if key not in known:
                raise ConfigError(f'{KEY}["{key}"]', f"unknown option{did_you_mean(key, known)}")
        preset = PAPER if given.get("mode") == "paper" else {}
        made = cls(**{**preset, **given})
        made.check()
        return made

    def check(self) -> None:
        """Raises ConfigError for values that make no sense."""
        for key, known in CHOICES.items():
            value = getattr(self, key)
            if value not in known:
                names = ", ".join(f'"{name}"' for name in known)
                hint = did_you_mean(str(value), known)
                raise wrong(key, f"must be one of {names}, but is {value!r} instead{hint}")
        for key in ("budget", "num_envs", "save_every", "range_test_runs", "range_test_epochs"):
            value = getattr(self, key)
            if value is None and key == "range_test_runs":
                continue
            if not isinstance(value, int) or value < 1:
                raise wrong(key, f"must be a whole number >= 1, but is {value!r} instead")
        for key in ("lr_range", "range_test_rates"):
            value = getattr(self, key)
            if value is not None and not (_is_numbers(value, 2) and 0 < value[0] < value[1]):
                raise wrong(key, f"must be two numbers, 0 < lowest < highest, but is {value!r} instead")
        self._check_acts_on()
        penalty = self.divergence_penalty
        if not (penalty is None or _is_numbers([penalty], 1) or _is_numbers(penalty, 2)):
            raise wrong("divergence_penalty", f"must be None, a number or two numbers, but is {penalty!r} instead")
        if self.needs_top and not self.range_test:
            raise wrong("range_test", f'must be True with the action "{self.action}" and this observation')

    def _check_acts_on(self) -> None:
        names = self.acts_on
        if isinstance(names, str) or not isinstance(names, Sequence) or list(names[:1]) != [RATE]:
            raise wrong("acts_on", f'must be a list that begins with "{RATE}", but is {names!r} instead')
        for place, name in enumerate(names):
            if not isinstance(name, str) or not (name in (RATE, MOMENTUM) or name.startswith(GROUP) and name != GROUP):
                hint = did_you_mean(str(name), (RATE, MOMENTUM, GROUP))
                raise wrong("acts_on", f'must have "{RATE}", "{MOMENTUM}" and "{GROUP}NAME", but has {name!r}{hint}')
            if name in names[:place]:
                raise wrong("acts_on", f"must have each name once, but has {name!r} twice")
        if not (_is_numbers(self.momentum_range, 2) and 0 <= self.momentum_range[0] < self.momentum_range[1] < 1):
            text = f"must be two numbers, 0 <= lowest < highest < 1, but is {self.momentum_range!r} instead"
            raise wrong("momentum_range", text)
        if not (_is_numbers([self.group_range], 1) and self.group_range > 1):
            raise wrong("group_range", f"must be a number above 1, but is {self.group_range!r} instead")

    @property
    def needs_top(self) -> bool:
        """Whether actions or observations refer to the highest useful learning rate."""
        return self.action == "step" or self.observation == "scale_free"

    @property
    def sees_paths(self) -> bool:
        """Whether observations tell how the parameters move."""
        return self.observation == "dynamics"

    def ppo_arguments(self) -> ConfigOptions:
        """The arguments of PPO besides those that environments and budget decide."""
        preset = {} if self.mode == "paper" else PRACTICAL_PPO
        return {**preset, "learning_rate": self.agent_lr, **self.ppo}


def wrong(key: str, text: str) -> ConfigError:
    """The error about an option."""
    return ConfigError(f'{KEY}["{key}"]', f"`{key}` {text}")


def _is_numbers(value: object, count: int) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == count
        and all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)
    )
