"""Kind updater: a few training steps of a small network."""

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.log import Log
from returnn_lite.network import Network
from returnn_lite.optim import Updater


def updater(config: dict, init: dict[str, np.ndarray], batches: list[dict]) -> list[dict[str, np.ndarray]]:
    """All parameters after each step."""
    options, log = Config(dict(config)), Log.silent()
    network = Network(options, config["network"], log=log)
    with torch.no_grad():
        for name, param in network.params.items():
            param.copy_(torch.as_tensor(init[name]))
    made = Updater(
        network.params,
        options,
        param_options=network.param_options,
        initial_learning_rate=config["initial_learning_rate"],
        log=log,
        network=network,
    )
    network.train()
    return [_step(network, made, batch, step, config["learning_rate"]) for step, batch in enumerate(batches)]


def _step(network: Network, made: Updater, batch: dict, step: int, learning_rate: float) -> dict[str, np.ndarray]:
    lengths = {key: torch.as_tensor(batch["len"]) for key in ("data", "classes")}
    data = {key: torch.as_tensor(batch[key]) for key in lengths}
    network.global_step = step
    made.step(network(data, lengths).objective, global_step=step, learning_rate=learning_rate, epoch_step=step)
    return {name: param.detach().numpy().copy() for name, param in network.params.items()}
