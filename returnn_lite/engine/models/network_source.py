"""The network of each epoch: its description, its construction, and taking over parameters from the previous one."""

import hashlib
from collections.abc import Callable

import torch

from returnn_lite.config import Config
from returnn_lite.config.config_code import call
from returnn_lite.config_value import ConfigDict, NetDict
from returnn_lite.datasets.factory import SEED_STEP_PER_RANK
from returnn_lite.engine.checkpoints.finite import infinite_constants
from returnn_lite.engine.checkpoints.load_on_init import load_on_init
from returnn_lite.engine.log_form import LayerForm
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.models.pretrain import COPY_MODES, Pretrain, PretrainOptions, resolve_epoch_values
from returnn_lite.engine.precision import Precision, refuse_other_floats
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.network import Network


class NetworkSource:
    """The layer net of every epoch: by `get_network(epoch=…)`, by `pretrain`, or `network` all the time."""

    def __init__(self, config: Config) -> None:
        self.config, self.form = config, LayerForm(self.is_pretrain)
        self.precision = Precision.from_config(config)
        refuse_other_floats(config)
        self.get_network = config.typed_value("get_network")
        self.pretrain: Pretrain | None = None
        if not callable(self.get_network):
            if self.get_network is not None:
                raise ConfigError("get_network", f"must be a function, but is {self.get_network!r} instead")
            self.pretrain = Pretrain.from_config(config, config.typed_value("network"))
        elif config.bool_or_other("pretrain", None):
            raise ConfigError("pretrain", "`pretrain` and `get_network` exclude each other")

    @property
    def per_epoch(self) -> bool:
        """Whether epochs may have different networks."""
        return callable(self.get_network) or self.pretrain is not None

    @property
    def pretrain_epochs(self) -> int:
        """The number of pretrain epochs."""
        return self.pretrain.num_epochs if self.pretrain is not None else 0

    def is_pretrain(self, epoch: int) -> bool:
        """Whether `epoch` is a pretrain epoch."""
        return self.pretrain is not None and epoch <= self.pretrain_epochs

    def describe(self, epoch: int) -> NetDict:
        """The net dict of `epoch`. ConfigError if there is none."""
        if self.pretrain is not None:
            return self.pretrain.description(epoch)
        by_function = callable(self.get_network)
        if by_function:
            description = call(self.get_network, "get_network", epoch=epoch)
        else:
            description = self.config.typed_value("network")
        if not isinstance(description, dict):
            name = "get_network" if by_function else "network"
            raise ConfigError(name, f"`{name}` must be a dict of layers, but is {description!r} instead")
        try:
            return resolve_epoch_values(description, epoch)  # type: ignore[no-any-return]
        except RecursionError as exc:
            raise ConfigError("network", "must not contain itself, nor be nested that deep") from exc

    def build(
        self,
        description: NetDict,
        *,
        epoch: int,
        device: torch.device,
        log: Log,
        step: int = 0,
        filename: str | None = None,
        search: bool = False,
        eval: bool = True,
        extra_layers: tuple[str, ...] = (),
    ) -> Network:
        """The network of a description, as of `build_network`. Step and `filename` do not matter."""
        return build_network(
            self.config,
            description,
            epoch=epoch,
            device=device,
            log=log,
            search=search,
            eval=eval,
            extra_layers=extra_layers,
        )

    def copy_modes(self, description: ConfigDict) -> Callable[[str], str | None]:
        """How a parameter (by name) is taken over into the net of this description: one of `COPY_MODES`."""
        options = self.pretrain.options if self.pretrain is not None else PretrainOptions()
        mode = description.get("#copy_param_mode", options.copy_param_mode)
        if mode not in COPY_MODES:
            text = f"must be one of {COPY_MODES}, but is {mode!r} instead"
            raise ConfigError('network["#copy_param_mode"]', text)
        if options.copy_output_layer is None or self.pretrain is None:
            return lambda name: mode
        of_outputs = {True: "ifpossible", False: "reset"}.get(options.copy_output_layer, options.copy_output_layer)
        outputs = tuple(f"{name}/" for name in self.pretrain.outputs)
        return lambda name: of_outputs if name.startswith(outputs) else mode


def network_seed(config: Config, epoch: int) -> int:
    """The seed of everything random in the network during `epoch` (initial values, dropout, …)."""
    seed = config.int("random_seed", None)
    return epoch if seed is None else (3 * epoch + 5 * seed + 7) % 2**31


def build_network(
    config: Config,
    description: NetDict,
    *,
    epoch: int,
    device: torch.device,
    log: Log,
    search: bool = False,
    eval: bool = True,
    extra_layers: tuple[str, ...] = (),
) -> Network:
    """Constructs the network with initial values that depend on the seed of `epoch` alone, on `device`."""
    seed = network_seed(config, epoch)
    net = Network(config, description, search=search, eval=eval, log=log, seed=seed, extra_layers=extra_layers)
    net.autocast = Precision.from_config(config).dtype
    net.loaded_on_init = load_on_init(net.params, net.layer_modules, log)
    net.to(device)
    net.infinite_constants = infinite_constants(net.params)
    start_epoch(net, config, epoch)
    return net


LOADER_DRAWS = 2  # whole numbers that torch's DataLoader takes at the start of an epoch; dropout comes behind them


def initial_seed(config: Config, epoch: int, step: int) -> int:
    """The seed of what is random in `get_model`."""
    return (epoch * 193939 + step * 19937 + config.int("random_seed", 42) * 27644437 + 479001599) % 2**31


def pass_seed(config: Config, epoch: int, step: int, rank: int | None) -> int:
    """The seed of what is random in a torch model during an epoch that begins with this step, in one of the processes.

    It is a hash, so that seeds of neighbours have nothing in common.
    """
    numbers = (epoch, step, config.int("random_seed", 42), *(() if rank is None else (rank,)))
    content = b"".join(number.to_bytes(8, "big", signed=True) for number in numbers)
    return int.from_bytes(hashlib.sha256(content).digest()[:4], "big")


def start_epoch(net: Model, config: Config, epoch: int, *, step: int = 0, rank: int | None = None) -> None:
    """Seeds everything random in the network, so that an epoch does not depend on what was run before it.

    step: the first one of the epoch. rank: of this process, if there are several, which get other seeds.
    """
    net.epoch = epoch
    if config.typed_value("get_model") is not None:
        net.seed(pass_seed(config, epoch, step, rank))
        for _ in range(LOADER_DRAWS):
            torch.empty((), dtype=torch.int64).random_()
    else:
        net.seed(network_seed(config, epoch) + (rank or 0) * SEED_STEP_PER_RANK)


def print_network(net: Model, log: Log) -> None:
    """The network and the number of parameters (verbosity 2)."""
    for line in net.summary():
        log.v2(line)
    log.v2(f"net params #: {sum(param.numel() for param in net.params.values())}")
    log.v2(f"net trainable params: {sorted(name for name, param in net.params.items() if param.requires_grad)}")
