"""Tasks that only build, save or remove models."""

from returnn_lite.config import Config
from returnn_lite.engine import data
from returnn_lite.engine.checkpoints.checkpoint import checkpoint_formats, save_model
from returnn_lite.engine.checkpoints.cleanup import cleanup_old_models, cleanup_options
from returnn_lite.engine.checkpoints.find import StartPoint, existing_models
from returnn_lite.engine.checkpoints.finite import require_finite
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.models.network_source import print_network
from returnn_lite.engine.models.source import model_source
from returnn_lite.engine.models.torch_model import TorchNet
from returnn_lite.engine.setup import (
    choose_device,
    final_epoch,
    find_start,
    load_start,
    model_name,
    preload_files,
)
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.schedule import LearningRateControl
from returnn_lite.version import __version__


def build_for_training(config: Config, log: Log, epoch: int, filename: str | None = None) -> Model:
    """The network of `epoch` as the training would build it, to be filled from a checkpoint or not."""
    if config.is_true("need_data", True):
        data.complete_extern_data(config, [data.open_dataset(config, "train", log)])
    device, source = choose_device(config, log), model_source(config)
    net = source.build(source.describe(epoch), epoch=epoch, device=device, log=log, filename=filename)
    print_network(net, log)
    return net


def nop_init_net_train_task(config: Config, log: Log) -> None:
    """Task `nop_init_net_train`: builds the network and loads its parameters, as the training would, and ends."""
    start_point = find_start(config, "train", log)
    net = build_for_training(config, log, start_point.start_epoch, start_point.filename)
    load_start(config, net, start_point, log, task="train")


def initialize_model_task(config: Config, log: Log) -> None:
    """Task `initialize_model`: the freshly initialised parameters, saved under exactly the name `model`."""
    net = build_for_training(config, log, 1)
    name = model_name(config) or "dummy"
    preload_files(config, net, log, training=True, start_point=StartPoint()).check()
    require_finite(net, f"{name} is not written")
    log.v4(f"Save model under {name}")
    rate = config.float("learning_rate", 1.0)
    info = {"epoch": 0, "step": 0, "effective_learning_rate": rate, "version": __version__}
    as_torch = isinstance(net, TorchNet)
    save_model(name, net.saved_params, info=info, formats=checkpoint_formats(config), as_torch=as_torch)


def cleanup_task(config: Config, log: Log) -> None:
    """Task `cleanup_old_models`: as after an epoch, but asks before anything is removed."""
    model = model_name(config)
    if model is None:
        raise ConfigError("model", "must be set, it is the base name of the checkpoints")
    options = cleanup_options(config.bool_or_other("cleanup_old_models", None) or True)
    scores = {epoch: record.error for epoch, record in LearningRateControl.from_config(config, log).epochs.items()}
    cleanup_old_models(existing_models(model, final_epoch(config)), scores, options or {}, log, ask=True)
