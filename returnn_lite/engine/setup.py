"""What every task starts with: the device, the checkpoint to start from, and a network with its parameters."""

from dataclasses import dataclass

import torch

from returnn_lite.config import Config
from returnn_lite.engine.checkpoints.checkpoint import AVERAGED
from returnn_lite.engine.checkpoints.find import (
    IMPORT,
    Request,
    StartPoint,
    choose_start,
    existing_models,
    looked_for,
    model_file,
    strip_suffix,
)
from returnn_lite.engine.checkpoints.importers import import_params
from returnn_lite.engine.checkpoints.load import load_params, stored_epoch
from returnn_lite.engine.checkpoints.preload import KEY as PRELOAD
from returnn_lite.engine.checkpoints.preload import preload
from returnn_lite.engine.checkpoints.torch_preload import Preloaded, preload_torch
from returnn_lite.engine.hooks import after_load
from returnn_lite.engine.models.model import Model, ModelSource
from returnn_lite.engine.models.network_source import print_network
from returnn_lite.engine.models.source import model_source
from returnn_lite.engine.models.torch_model import TorchNet
from returnn_lite.engine.models.torch_source import TorchSource
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log
from returnn_lite.network.kept_frames import with_kept_frames
from returnn_lite.optim.averaging import AveragingOptions

PRECISIONS = ("highest", "high", "medium")  # of products of float32 matrices; the latter two compute in TF32 or less


def device_words(config: Config) -> tuple[str, str]:
    """The option `device` as its kind ("": not set) and the number of a GPU ("": any). ConfigError if it is none."""
    wanted = config.value("device", None)
    kind, _, index = (wanted or "").partition(":")
    if kind not in ("", "gpu", "cuda", "cpu") or (index and (kind != "cuda" or not index.isdecimal())):
        hint = did_you_mean(wanted or "", ["gpu", "cpu", "cuda"])
        text = f'`device` must be "gpu", "cuda", "cuda:<number>", "cpu" or unset, but is {wanted!r} instead{hint}'
        raise ConfigError("device", text)
    return kind, index


def choose_device(config: Config, log: Log) -> torch.device:
    """The device by the option `device`: "gpu" or "cuda" (or "cuda:1", the second one), "cpu", or unset for the GPU if
    there is one."""
    kind, index = device_words(config)
    found = kind != "cpu" and torch.cuda.is_available()
    if kind in ("gpu", "cuda") and not found:
        raise ConfigError("device", "no GPU available")
    if index and int(index) >= torch.cuda.device_count():
        raise ConfigError("device", f"{kind}:{index} does not exist: the machine has {torch.cuda.device_count()} GPUs")
    precision = config.value("float32_matmul_precision", "highest")
    if precision not in PRECISIONS:
        hint = did_you_mean(precision, PRECISIONS)
        raise ConfigError(
            "float32_matmul_precision", f"must be one of {PRECISIONS}, but is {precision!r} instead{hint}"
        )
    torch.set_float32_matmul_precision(precision)
    if not kind:
        log.v2(f"Device not set explicitly, and {'we found a GPU, which we will use.' if found else 'no GPU found.'}")
    return torch.device(f"cuda:{index}" if index else "cuda" if found else "cpu")


DEFAULTS = {"learning_rate": "1.0", "batch_size": "1", "max_seqs": "no limit", "num_epochs": "5", "optimizer": "sgd"}
# Options that stand for one of these.
STAND_FOR = {
    "learning_rate": ("learning_rates", "dynamic_learning_rate"),
    "optimizer": ("adam", "nadam", "adadelta", "adagrad", "rmsprop", "momentum"),
}


def log_defaults(config: Config, log: Log) -> None:
    """Says which of the options that matter most are not given, and what they are then (verbosity 2)."""
    missing = [
        f"{option} {value}"
        for option, value in DEFAULTS.items()
        if option in config.ignored_keys() or not any(config.has(o) for o in (option, *STAND_FOR.get(option, ())))
    ]
    if missing:
        log.v2(f"defaults of options that are not given: {', '.join(missing)}")


def model_name(config: Config) -> str | None:
    """The base name of the checkpoints; None if none are to be written."""
    return config.value("model", None) or None


def final_epoch(config: Config) -> int:
    """The last epoch to train; 0 = no end."""
    epochs = config.int("num_epochs", 5) or 0
    return max(epochs, config.int("load_epoch", 0) or 0) if epochs > 0 else 0


def requested_epoch(config: Config, task: str) -> int:
    """`load_epoch`, which other tasks than the training may also call `epoch`; 0 if not given."""
    load_epoch = config.int("load_epoch", 0) or 0
    epoch = (config.int("epoch", 0) or 0) if task != "train" else 0
    if epoch and load_epoch and epoch != load_epoch:
        raise ConfigError("epoch", f"`epoch` must be equal to `load_epoch` {load_epoch}, but is {epoch} instead")
    return load_epoch or epoch


def find_start(config: Config, task: str, log: Log) -> StartPoint:
    """The checkpoint that this task starts from, by the options and what is on the disk."""
    model, training = model_name(config), task == "train"
    last = final_epoch(config)
    if not training and last:
        last = max(last, requested_epoch(config, task))
    existing = existing_models(model, last, resumable=training)
    stored = existing_models(model, last)
    if training and not existing:
        existing = finished_models(config, model, last, stored)
    lacking = [epoch for epoch in stored if epoch > max(existing, default=0)] if training else []
    if lacking:
        log.v2(f"note: models without optimizer state, from which training cannot continue: epochs {lacking}")
    request = Request(
        task=task,
        existing=existing,
        stored=stored,
        load=config.value("load", "") or "",
        load_epoch=requested_epoch(config, task),
        start_epoch=_start_epoch(config) if training else None,
        import_model=config.value("import_model_train_epoch1", "") or "",
        allow_random=config.is_true("allow_random_model_init"),
        looked=looked_for(model, last),
    )
    start_point = choose_start(request)
    for note in start_point.notes:
        log.v4(note)
    return start_point


def finished_models(config: Config, model: str | None, last: int, stored: dict[int, str]) -> dict[int, str]:
    """The model of the last epoch, if a training was to go further once, and only later epochs can be continued.

    ConfigError if there is none: neither is there anything to train, nor a result.
    """
    beyond = max(existing_models(model, 0, resumable=True), default=0)
    if not last or beyond <= last or _start_epoch(config) is not None:
        return {}
    if last not in stored:
        text = f"is {last}, but {model!r} is trained up to epoch {beyond} already; `start_epoch` 1 starts from scratch"
        raise ConfigError("num_epochs", text)
    return {last: stored[last]}


def _start_epoch(config: Config) -> int | None:
    batch = config.value("start_batch", "auto")
    if batch != "auto":
        raise ConfigError("start_batch", f"custom start_batch {batch!r} not supported")
    if config.value("start_epoch", "auto") == "auto":
        return None
    epoch = config.int("start_epoch", 1)
    if epoch is None or epoch < 1:
        raise ConfigError("start_epoch", f"`start_epoch` must be at least 1, but is {epoch} instead")
    return epoch


def averaged_file(config: Config, filename: str, task: str, log: Log) -> str:
    """The checkpoint's averaged parameters if `load_averaged` wants them, or `weight_averaging` for this task; else
    the name as it is."""
    wanted, use = config.bool_or_other("load_averaged", "auto"), config.literal("weight_averaging", None)
    if wanted == "auto":
        tasks = AveragingOptions.from_value(use, 1).use_for if use else ()
        wanted = {"eval": "dev"}.get(task, task) in tasks
        if wanted and model_file(strip_suffix(filename) + AVERAGED) is None:
            log.v2(f"note: {filename} has no averaged parameters")
            return filename
    return strip_suffix(filename) + AVERAGED if wanted else filename


def preload_files(config: Config, net: Model, log: Log, *, training: bool, start_point: StartPoint) -> Preloaded:
    """Loads what `preload_from_files` says for this task and start."""
    entries = config.literal(PRELOAD)
    if isinstance(net, TorchNet):
        return preload_torch(net.params, entries, log, training=training, fresh=not start_point.epoch)
    own = training and start_point.resume  # then the model file is newer than what the net began with
    began = () if own else net.loaded_on_init
    fresh = start_point.filename is None
    return Preloaded(preload(net.params, entries, log, training=training, fresh=fresh, done=began))


def load_start(config: Config, net: Model, start_point: StartPoint, log: Log, *, task: str) -> int:
    """Fills the parameters by `preload_from_files` and the chosen checkpoint, then calls `load_model_post_hooks`;
    returns the global step."""
    step = _load_start(config, net, start_point, log, task)
    after_load(config, net)
    return step


def _load_start(config: Config, net: Model, start_point: StartPoint, log: Log, task: str) -> int:
    training = task == "train"
    preloaded = preload_files(config, net, log, training=training, start_point=start_point)
    if start_point.filename is None:
        if training:
            preloaded.check()
        return 0
    filename = start_point.filename if training else averaged_file(config, start_point.filename, task, log)
    log.v2(f"loading weights from {filename}")
    done = preloaded.loaded
    optional = {name for name, options in net.param_options.items() if not options.critical} | preloaded.may_lack
    try:
        if not start_point.resume:
            done |= import_params(net, filename, log, done=done)
        return load_params(
            net.params,
            filename,
            log,
            skip=done,
            optional=optional,
            ignore_missing=config.is_true("load_ignore_missing_vars"),
            must_be_finite=must_be_finite(config),
            option=start_point.option,
        )
    except ConfigError:
        log.v1("Exiting now because model cannot be loaded.")
        raise


def must_be_finite(config: Config) -> bool:
    """Whether parameters that are NaN or infinite end a run, or are only warned of."""
    return config.is_true("stop_on_nonfinite_train_score", True)


def file_epoch(start_point: StartPoint) -> int:
    """The epoch that a model written in torch is made for when a file fills it: the one that it was saved after, 0 for
    `import_model_train_epoch1`."""
    if start_point.epoch is not None and (start_point.resume or start_point.option == IMPORT):
        return start_point.epoch
    return stored_epoch(start_point.filename or "") or start_point.epoch or 1


@dataclass
class Loaded:
    """A trained network for a task without training."""

    net: Model
    epoch: int
    device: torch.device
    global_step: int
    source: ModelSource


def load_network(
    config: Config, log: Log, *, task: str, search: bool = False, eval: bool = True, extra_layers: tuple[str, ...] = ()
) -> Loaded:
    """Builds the network of the wanted epoch and loads its checkpoint; its train flag is off.

    extra_layers: those whose outputs are read, too; in a loop "output/att_weights".
    """
    device = choose_device(config, log)
    start_point = find_start(config, task, log)
    source = model_source(config)
    epoch = start_point.epoch or (file_epoch(start_point) if isinstance(source, TorchSource) else 1)
    net = source.build(
        with_kept_frames(source.describe(epoch), extra_layers),
        epoch=epoch,
        device=device,
        log=log,
        filename=start_point.filename,
        search=search,
        eval=eval,
        extra_layers=extra_layers,
    )
    print_network(net, log)
    step = load_start(config, net, start_point, log, task=task)
    net.global_step = step
    net.eval()
    return Loaded(net, epoch, device, step, source)
