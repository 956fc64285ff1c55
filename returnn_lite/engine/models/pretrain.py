"""Pretraining: which net description each of the first epochs trains. Knows dicts alone, no tensors."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigDict, ConfigFunction, ConfigValue, NetDict
from returnn_lite.errors import ConfigError, did_you_mean

Algorithm = Callable[[NetDict, "PretrainOptions"], list[NetDict]]
COPY_MODES = (None, "ifpossible", "subset", "reset")


class WrapEpochValue:
    """A value in a net description that depends on the epoch: `func(epoch=…)`."""

    def __init__(self, func: ConfigFunction) -> None:
        self.func = func

    def get_value(self, epoch: int) -> ConfigValue:
        """The value in `epoch` (from 1)."""
        return self.func(epoch=epoch)

    def __deepcopy__(self, memo: object) -> WrapEpochValue:
        return self


def resolve_epoch_values(value: ConfigValue, epoch: int) -> ConfigValue:
    """A copy of a description with the values of `epoch`, at any depth; what holds none stays the same object."""
    if isinstance(value, WrapEpochValue):
        return value.get_value(epoch)
    if isinstance(value, dict):
        return {key: resolve_epoch_values(part, epoch) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(resolve_epoch_values(part, epoch) for part in value)
    return value


@dataclass(frozen=True)
class PretrainOptions:
    """The option `pretrain`, checked. `repetitions`: epochs per step; an int, a list, or a dict by index."""

    copy_param_mode: str | None = None
    copy_output_layer: ConfigValue = None
    greedy: bool | None = None
    repetitions: ConfigValue = None
    construction_algo: ConfigValue = None
    output_layers: Sequence[str] | None = None
    input_layers: Sequence[str] = ("data",)

    @staticmethod
    def from_config(config: Config) -> PretrainOptions | None:
        """None without pretraining. ConfigError for an unknown entry, algorithm or mode."""
        value = config.bool_or_other("pretrain", None)
        if not value:
            return None
        if value not in (True, "default") and not isinstance(value, Mapping):
            raise ConfigError("pretrain", f'`pretrain` must be a dict, True or "default", but is {value!r} instead')
        given = dict(value) if isinstance(value, Mapping) else {}
        known = list(inspect.signature(PretrainOptions).parameters)
        for name in given:
            if name not in known:
                raise ConfigError(f'pretrain["{name}"]', f'unknown option "{name}"{did_you_mean(name, known)}')
        for name in ("copy_output_layer", "repetitions", "construction_algo", "greedy"):
            if given.get(name) is None and config.has(f"pretrain_{name}"):
                given[name] = config.opt_typed_value(f"pretrain_{name}")
        return PretrainOptions(**given)

    def __post_init__(self) -> None:
        if self.copy_param_mode not in COPY_MODES:
            text = f"`copy_param_mode` must be one of {COPY_MODES}, but is {self.copy_param_mode!r} instead"
            raise ConfigError('pretrain["copy_param_mode"]', text)
        algorithm = self.construction_algo
        if algorithm is not None and not callable(algorithm) and algorithm not in ALGORITHMS:
            text = f"unknown algorithm {algorithm!r}{did_you_mean(str(algorithm), ALGORITHMS)}"
            raise ConfigError('pretrain["construction_algo"]', f"{text}; known: {', '.join(ALGORITHMS)}, or a function")


class Pretrain:
    """The net description of every pretrain epoch; epochs behind them have the last one, the network itself."""

    def __init__(self, options: PretrainOptions, network: NetDict) -> None:
        self.options = options
        algorithm = options.construction_algo or "from_output"
        if callable(algorithm):
            self.name = f"Pretrain construction algo {getattr(algorithm, '__name__', algorithm)}"
            self.steps = steps_by_function(algorithm, network)
        else:
            self.name = f"Default layerwise construction {algorithm}"
            self.steps = ALGORITHMS[algorithm](network, options)
        self.repetitions = repetitions(options.repetitions, self.steps)
        self.epoch_steps = [i for i, count in enumerate(self.repetitions) for _ in range(count)]
        if options.greedy and self.num_epochs > 1:
            raise ConfigError('pretrain["greedy"]', "greedy pretraining is not supported")

    @staticmethod
    def from_config(config: Config, network: ConfigValue) -> Pretrain | None:
        """By the config's options; None without pretraining."""
        options = PretrainOptions.from_config(config)
        if options is None:
            return None
        if not isinstance(network, dict):
            raise ConfigError("network", f"`network` must be a dict of layers, but is {network!r} instead")
        return Pretrain(options, network)

    @property
    def outputs(self) -> list[str]:
        """The output layers of the whole network."""
        return _outputs(self.steps[-1], self.options)

    @property
    def num_epochs(self) -> int:
        """The number of pretrain epochs."""
        return len(self.epoch_steps)

    def description(self, epoch: int) -> NetDict:
        """The net of `epoch` (from 1), its epoch values resolved; those of the last pretrain epoch stay for good."""
        epoch = min(epoch, self.num_epochs)
        found: NetDict = resolve_epoch_values(self.steps[self.epoch_steps[epoch - 1]], epoch)
        return found

    def __str__(self) -> str:
        text = f"{self.name}, number of pretrain epochs: {self.num_epochs}"
        return text if set(self.repetitions) == {1} else f"{text} (repetitions: {self.repetitions})"


# --- how often --------------------------------------------------------------------------------------------------------


def repetitions(value: ConfigValue, steps: Sequence[NetDict]) -> list[int]:
    """The number of epochs of each step: by its own `#repetition`, else by the option."""
    counts = [_repetition(value, i, len(steps)) for i in range(len(steps))]
    for i, step in enumerate(steps):
        counts[i] = step.get("#repetition", counts[i])
    for count in counts:
        if not isinstance(count, int) or count < 0:
            raise ConfigError('pretrain["repetitions"]', f"must be whole numbers from 0 on, but one is {count!r}")
    if not sum(counts):
        raise ConfigError('pretrain["repetitions"]', "there must be at least one pretrain epoch")
    return counts


def _repetition(value: ConfigValue, index: int, count: int) -> ConfigValue:
    if value is None:
        return 1
    if isinstance(value, Mapping):
        last = index == count - 1
        if last and "final" in value:
            return value["final"]
        return value.get(index, value.get("default", 1))
    if isinstance(value, (list, tuple)):
        return value[min(index, len(value) - 1)] if value else 1
    return value


# --- which nets -------------------------------------------------------------------------------------------------------


def steps_by_function(function: ConfigFunction, network: NetDict) -> list[NetDict]:
    """What `function(idx=…, net_dict=…)` makes of copies of the network, until it returns nothing; then the network."""
    return [*_made(function, network), network]


def _made(function: ConfigFunction, network: NetDict) -> Iterator[NetDict]:
    index = 0
    while net := function(idx=index, net_dict=copy.deepcopy(network)):
        if not isinstance(net, dict):
            text = f"must return a dict of layers, or None to end, but returned {net!r} instead"
            raise ConfigError('pretrain["construction_algo"]', text)
        yield net
        index += 1


def no_modifications(network: NetDict, options: PretrainOptions) -> list[NetDict]:
    """The network alone."""
    return [network]


def from_output(network: NetDict, options: PretrainOptions) -> list[NetDict]:
    """Smallest first: nets from which the layers directly below the outputs have been removed again and again."""
    nets, outputs = [network], _outputs(network, options)
    while True:
        net = nets[-1]
        below = _unique(source for name in outputs for source in _sources(net, name) if source in net)
        if not below:
            break
        smaller = _without(net, below)
        if any(_reads_data(smaller, name, options) for name in outputs):
            break
        nets.append(smaller)
    return _worth_training(nets)


def from_input(network: NetDict, options: PretrainOptions) -> list[NetDict]:
    """Smallest first: nets from which the layers directly above the data have been removed again and again."""
    nets, outputs = [network], _outputs(network, options)
    while True:
        net = nets[-1]
        above = [name for name in net if _reads_data(net, name, options) and name not in outputs]
        if not above:
            break
        smaller = _without(net, above)
        if any(_reads_data(smaller, name, options) for name in outputs):
            break
        nets.append(smaller)
    return _worth_training(nets)


def _worth_training(largest_first: list[NetDict]) -> list[NetDict]:
    """Smallest first, without the nets that add nothing trainable to the one before; the whole network always stays."""
    nets: list[NetDict] = []
    for net in reversed(largest_first):
        added = [name for name in net if nets and name not in nets[-1]]
        if nets and not any(_trainable(net[name]) for name in added):
            nets.pop()
        nets.append(net)
    return nets


def _outputs(network: NetDict, options: PretrainOptions) -> list[str]:
    """The layers that every step has: those given, else the output layer and all with a loss."""
    if options.output_layers:
        return list(options.output_layers)
    layers = {name: d for name, d in network.items() if not name.startswith("#")}
    found = [n for n, d in layers.items() if n == "output" or d.get("loss") or d.get("is_output_layer")]
    for name in found:
        if "from" not in layers[name]:
            raise ConfigError(f'network["{name}"]', "layer-wise pretraining needs `from` in each layer")
    return found


def _sources(net: NetDict, name: str) -> list[str]:
    value = net[name].get("from", "data")
    return [value] if isinstance(value, str) else list(value)


def _reads_data(net: NetDict, name: str, options: PretrainOptions) -> bool:
    return not name.startswith("#") and any(source in options.input_layers for source in _sources(net, name))


def _trainable(description: ConfigDict) -> bool:
    return bool(description.get("trainable", True))


def _without(net: NetDict, removed: Sequence[str]) -> NetDict:
    """The net less some layers; who read them reads what they read."""
    left = {name: d for name, d in net.items() if name not in removed}

    def replaced(source: str) -> list[str]:
        return [s for inner in _sources(net, source) for s in replaced(inner)] if source in removed else [source]

    for name, description in left.items():
        if name.startswith("#") or not any(source in removed for source in _sources(net, name)):
            continue
        left[name] = {**description, "from": _unique(s for source in _sources(net, name) for s in replaced(source))}
    return left


def _unique(names: ConfigValue) -> list[str]:
    return list(dict.fromkeys(names))


ALGORITHMS: dict[str, Algorithm] = {
    "from_output": from_output,
    "from_input": from_input,
    "no_network_modifications": no_modifications,
}
