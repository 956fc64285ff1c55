"""The datasets of a task with the config's defaults, and the batches they are cut into."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial, reduce

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets import Batch, BatchingOptions, Dataset, Loader, dataset_defaults, init_dataset
from returnn_lite.datasets.batches.buckets import ShuffledBatches
from returnn_lite.datasets.batches.by_function import FunctionLoader
from returnn_lite.datasets.batches.epoch_batches import new_batches
from returnn_lite.datasets.batches.limits import check_limit
from returnn_lite.datasets.batches.torch_batching import limits_by_class
from returnn_lite.datasets.batches.torch_slices import TorchChunking
from returnn_lite.datasets.casting import AS_IT_IS
from returnn_lite.datasets.combined.worker_process import Workers
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.worker_loader import AHEAD, loader_of_processes, why_not
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.tensor import Spec

LOADER_OPTIONS = "torch_dataloader_opts"
EVAL_NAMES = ("dev", "eval")
# Keys of `extern_data` that datasets need not have, for models written in torch.
OF_EPOCH = {"num_seqs": "int64", "epoch": "int64", "complete_frac": "float32"}
OF_SEQUENCES = {"seq_tag", "seq_idx"}


def open_dataset(config: Config, name: str, log: Log) -> Dataset | None:
    """The dataset of the option `train`, `dev` or `eval`; None if it is not set."""
    value = config.literal(name)
    if not value:
        return None
    return init_dataset(value, name=name, config=config, defaults=dataset_defaults(config, name), log=log)


def open_eval_datasets(config: Config, log: Log) -> dict[str, Dataset]:
    """All datasets that scores are computed for: dev, eval, then those of `eval_datasets` (which get no defaults)."""
    found = {name: open_dataset(config, name, log) for name in EVAL_NAMES}
    datasets = {name: dataset for name, dataset in found.items() if dataset is not None}
    extra = config.literal("eval_datasets") or {}
    if not isinstance(extra, dict):
        raise ConfigError("eval_datasets", f"must be a dict of datasets by name, but is {extra!r} instead")
    for name, value in extra.items():
        datasets[name] = init_dataset(value, name=name, config=config, log=log)
    return datasets


def require_dataset(config: Config, name: str, log: Log) -> Dataset:
    """As `open_dataset`; ConfigError if it is not set."""
    dataset = open_dataset(config, name, log)
    if dataset is None:
        raise ConfigError(name, f"no {name} files specified, check {name!r} option: {config.literal(name)!r}")
    return dataset


def named_dataset(config: Config, option: str, log: Log) -> Dataset:
    """The dataset of `search_data` or `forward_data`: the name train, dev or eval (the default), or one of its own."""
    value = config.literal(option, None)
    if not value and not config.literal("eval"):
        text = 'no eval files specified: it must be a dataset, or "train", "dev" or "eval", which is not set either'
        raise ConfigError(option, text)
    value = value or "eval"
    if isinstance(value, str) and value in ("train", "dev", "eval"):
        return require_dataset(config, value, log)
    return init_dataset(value, name=option, config=config, log=log)


def print_data_info(datasets: dict[str, Dataset], log: Log) -> None:
    """Dimensions and size of each dataset (verbosity 2)."""
    for name, dataset in datasets.items():
        log.v2(f"{name.capitalize()} data:")
        log.v2(f"  input: {dataset.num_inputs} x {getattr(dataset, 'window', 1)}")
        log.v2(f"  output: {dict(dataset.num_outputs or {})!r}")
        log.v2(f"  {type(dataset).__name__}, sequences: {num_seqs_text(dataset)}, frames: unknown")


def num_seqs_text(dataset: Dataset) -> str:
    """The number of sequences of the whole dataset, or `unknown`."""
    try:
        return str(dataset.get_total_num_seqs(fast=True))
    except NotImplementedError:
        return "unknown"


def complete_extern_data(config: Config, datasets: Iterable[Dataset | None]) -> None:
    """Sets `extern_data` from the first dataset where the config describes its data in no other way."""
    if any(config.has(key) for key in ("extern_data", "num_inputs", "num_outputs")):
        return
    for dataset in datasets:
        if dataset is not None:
            config.set("extern_data", dataset.extern_data())
            return


# --- batches ----------------------------------------------------------------------------------------------------------


def train_batching(config: Config, net: Model, epoch: int) -> BatchingOptions:
    """The options of the training's batches."""
    return BatchingOptions(
        **_common(config, net, "batch_size_train"),
        **(_torch_stages(config) or _layer_stages(config)),
        trains=True,
        shuffled=ShuffledBatches.parse(config.literal("online_shuffle_batches", None)),
        max_seq_length=longest_seq(config, epoch),
        min_seq_length=config.number_or_dict("min_seq_length", 0),
        recurrent_net=net.recurrent,
    )


def _layer_stages(config: Config) -> dict[str, ConfigValue]:
    """What trainings of models written in torch do without."""
    return {
        "max_pad_size": config.number_or_dict("max_pad_size", None),
        "seq_drop": config.float("seq_drop", 0.0) or 0.0,
        "seq_drop_freq": config.int("seq_drop_freq", 10) or 10,
        "shuffle_batches": config.is_true("shuffle_batches"),
    }


def longest_seq(config: Config, epoch: int) -> ConfigValue:
    """`max_seq_length`, which grows by `inc_seq_length` each epoch if it is a number and the net one of layers."""
    longest, growth = config.number_or_dict("max_seq_length", 0), config.float("inc_seq_length", 0.0)
    if is_torch(config) or not longest or not growth or not isinstance(longest, int | float):
        return longest
    for option, value in (("max_seq_length", abs(longest)), ("inc_seq_length", growth)):
        check_limit(option, value, least=-math.inf)
    return int(longest + epoch * growth)


def eval_batching(config: Config, net: Model, name: str, epoch: int) -> BatchingOptions:
    """The options of an evaluation's batches; `max_seq_length` counts for `dev` only, for models written in torch for
    all, as does `min_seq_length`."""
    torch_stages, of_eval = _torch_stages(config), _common(config, net, "batch_size_dev")
    if torch_stages:
        of_eval |= {"min_seq_length": config.number_or_dict("min_seq_length", 0), **torch_stages}
    longest = longest_seq(config, epoch) if name == "dev" or torch_stages else 0
    return BatchingOptions(**of_eval, max_seq_length=longest, recurrent_net=net.recurrent)


def forward_batching(config: Config, net: Model) -> BatchingOptions:
    """One row per sequence; the size is `forward_batch_size`, for models of `get_model` that of `dev` if it is set."""
    of_dev = config.has("get_model") and (config.has("batch_size") or config.has("batch_size_dev"))
    if config.has("forward_batch_size") and not (of_dev and is_torch(config)):
        size = config.number_or_dict("forward_batch_size", None)
        check_limit("forward_batch_size", size, above=True)
        options = _common(config, net) | {"batch_size": size, "size_option": "forward_batch_size"}
    elif not of_dev:
        raise ConfigError("forward_batch_size", "forward_batch_size not set")
    else:
        options = _common(config, net, "batch_size_dev")
    return BatchingOptions(**options, **_forward_stages(config), recurrent_net=True)


def _forward_stages(config: Config) -> dict[str, ConfigValue]:
    """Chunks and limits for models written in torch. ConfigError for limits, unless sequences may be left out."""
    stages = _torch_stages(config)
    limits = {name: config.number_or_dict(name, 0) for name in ("max_seq_length", "min_seq_length")}
    for name, value in limits.items() if stages else ():
        if value and not config.is_true("allow_skipping_seqs_in_forward"):
            hint = "it would skip sequences, which needs `allow_skipping_seqs_in_forward` = True"
            raise ConfigError(name, f"must not be set for the task forward, but is {value!r}: {hint}")
    return {**limits, **stages} if stages else {}


def prior_batching(config: Config, net: Model) -> BatchingOptions:
    """The batches of the training, but of all sequences."""
    return BatchingOptions(**_common(config, net), recurrent_net=net.recurrent)


def search_batching(config: Config, net: Model) -> BatchingOptions:
    """One row per sequence, none left out."""
    if config.number_or_dict("max_seq_length", 0):
        value = config.literal("max_seq_length")
        raise ConfigError(
            "max_seq_length", f"`max_seq_length` must be 0 or unset for the search, but is {value!r} instead"
        )
    return BatchingOptions(**_common(config, net), recurrent_net=True)


def _common(config: Config, net: Model, own_size: str = "batch_size") -> dict[str, ConfigValue]:
    """What all batches have in common. own_size: the option that wins over `batch_size`."""
    packed = config.number_or_dict("packed_batch_size", None)
    option = own_size if config.has(own_size) else "batch_size"
    size, seqs = _or_function(config, option, config.number_or_dict), _or_function(config, "max_seqs", config.int)
    if size is None and not packed:
        size = math.inf if config.has(option) and is_torch(config) else 1
    limits = {"batch_size": size, "size_option": option, "packed_batch_size": packed, "max_seqs": seqs or -1}
    limits |= limits_by_class(config.literal("torch_batching", None))
    return {**limits, "used_data_keys": frozenset(net.used_data_keys), "as_torch": is_torch(config)}


def is_torch(config: Config) -> bool:
    """Whether batches are made by the rules for models written in torch."""
    return config.value("backend", None) == "torch"


def _or_function(config: Config, name: str, read: Callable[[str, ConfigValue], ConfigValue]) -> ConfigValue:
    """A function of the config as it is; else as `read` gives it, None without."""
    value = config.typed_value(name, None)
    return value if callable(value) else read(name, None)


def _torch_stages(config: Config) -> dict[str, ConfigValue]:
    """For models written in torch: chunks, in evaluation and forward too, of sequences within the limits."""
    if not is_torch(config):
        return {}
    least = config.number_or_dict("min_chunk_size", 0) or 0
    chunking = TorchChunking.parse(config.opt_typed_value("chunking"), least)
    return {"torch_chunking": chunking}


def count_batches(dataset: Dataset, options: BatchingOptions) -> int:
    """The number of batches of the first epoch, from the lengths of its sequences."""
    dataset.init_seq_order(epoch=1)
    if options.by_function is not None:
        keys = dataset.get_data_keys()
        return sum(1 for _ in FunctionLoader(dataset, options, function=options.by_function, keys=keys, workers=0))
    return sum(1 for _ in new_batches(dataset, options))


def load_batches(
    dataset: Dataset, options: BatchingOptions, net: Model, config: Config, workers: Workers | None = None
) -> Loader:
    """The batches of the dataset's epoch with the data that `net` uses, prepared in the background.

    workers: the processes that make them if there are to be several; without them there are new ones.
    """
    specs, known = net.extern_data.specs, dataset.get_data_keys()
    options.check_keys({*known, *specs}, dataset.log.v1)
    facts = [key for key in OF_EPOCH if net.data_as_they_are and key in net.used_data_keys and key not in known]
    made_up = {*facts, *(OF_SEQUENCES - set(known))} if net.data_as_they_are else set()
    keys = sorted(key for key in net.used_data_keys if key in specs and key not in made_up)
    static = [key for key in keys if specs[key].time is None]
    dtypes = {key: specs[key].dtype for key in keys}
    classes = {key: sparse.size for key in keys if (sparse := specs[key].sparse_dim) is not None and sparse.size}
    if net.data_as_they_are:
        dtypes, classes = {key: "string" if dtype == "string" else AS_IT_IS for key, dtype in dtypes.items()}, {}
    count, ahead = worker_options(config)
    make: Callable[..., Loader] = partial(Loader, workers=min(count, 1))
    if options.by_function is not None:
        make = partial(FunctionLoader, function=options.by_function, workers=min(count, 1))
    elif count > 1:
        reason = why_not(dataset, workers)
        if not reason:
            make = partial(loader_of_processes(dataset), count=count, ahead=ahead, workers=workers)
        else:
            dataset.log.v2(f"note: {dataset.name} is read by one process, since {reason}")
    moved = {key: place for key in keys if (place := _place_of_frames(specs[key]))}
    changes: list[Callable[[Batch], Batch]] = [partial(with_frames_at, moved)] if moved else []
    changes += [partial(with_facts, facts, dataset, dataset.known_num_seqs)] if facts else []
    changes += [pinned] if net.device.type == "cuda" else []
    return make(
        dataset,
        options,
        keys=keys,
        dtypes=dtypes,
        static_keys=static,
        classes=classes,
        check=partial(check_shapes, dataset, {key: specs[key] for key in keys}),
        refuse_nan=not net.data_as_they_are and config.bool("stop_on_nonfinite_train_score", True),
        transform=(lambda batch: reduce(lambda made, change: change(made), changes, batch)) if changes else None,
        busy=_has_work(net.device),
    )


def worker_options(config: Config) -> tuple[int, int]:
    """(number of processes that read, batches that each makes ahead), by `num_workers` or `torch_dataloader_opts`.

    0: all in the process itself, 1: in a thread of it.
    """
    path, options = LOADER_OPTIONS, loader_options(config)
    count, ahead = config.int("num_workers", None), options.get("prefetch_factor") or AHEAD
    count = options.get("num_workers", 1) if count is None else count
    for key, value, least in (("num_workers", count, 0), ("prefetch_factor", ahead, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            text = f"must be a whole number of at least {least}, but is {value!r} instead"
            raise ConfigError(f'{path}["{key}"]', text)
    return int(count), int(ahead)


def new_workers(config: Config) -> Workers:
    """For the processes that read: they stay from epoch to epoch, unless `persistent_workers` is False."""
    stay = loader_options(config).get("persistent_workers", True)
    if not isinstance(stay, bool):
        raise ConfigError(f'{LOADER_OPTIONS}["persistent_workers"]', f"must be True or False, but is {stay!r} instead")
    return Workers(stay=stay)


def loader_options(config: Config) -> Mapping[str, ConfigValue]:
    """`torch_dataloader_opts`. ConfigError unless it is a dict."""
    options = config.literal(LOADER_OPTIONS, None) or {}
    if not isinstance(options, Mapping):
        raise ConfigError(LOADER_OPTIONS, f"must be a dict, but is {options!r} instead")
    return options


def _place_of_frames(spec: Spec) -> int:
    """Where the time axis stands among the axes of a sequence; datasets have it in front."""
    return [dim for dim in spec.dims if not dim.is_batch].index(spec.time_dim) if spec.time_dim is not None else 0


def with_frames_at(places: Mapping[str, int], batch: Batch) -> Batch:
    """The batch with the time axis of these keys moved to its place among the axes of a sequence.

    Shape: (B, T, F), place 1 -> (B, F, T)
    """
    arrays = {key: batch.data[key] for key in places}
    moved = {key: np.moveaxis(x, 1, 1 + places[key]) for key, x in arrays.items() if isinstance(x, np.ndarray)}
    return replace(batch, data={**batch.data, **moved})


def with_facts(keys: Iterable[str], dataset: Dataset, num_seqs: int | None, batch: Batch) -> Batch:
    """The batch with numbers about its epoch as data without axes; -1 for what is not known."""
    values = {"num_seqs": num_seqs, "epoch": dataset.epoch or 1, "complete_frac": batch.complete}
    found = {key: np.array(-1 if values[key] is None else values[key], OF_EPOCH[key]) for key in keys}
    return replace(batch, data={**batch.data, **found})


def check_shapes(dataset: Dataset, specs: Mapping[str, Spec], batch: Batch) -> None:
    """Raises ConfigError for data that are not what `extern_data` says of them, naming the entry that is wrong."""
    for key, values in batch.data.items():
        spec = specs[key]
        if not isinstance(values, np.ndarray) or spec.batch is None:
            continue
        want, shape = [dim.size for dim in spec.dims if not dim.is_batch], values.shape[1:]
        if want:
            want.insert(0, want.pop(_place_of_frames(spec)))
        if len(want) == len(shape) and all(size in (None, found) for size, found in zip(want, shape, strict=True)):
            continue
        of = f'"{key}" of {dataset.name}'
        if len(shape) == len(want) - 1 and not spec.sparse and dataset.is_data_sparse(key):
            text = f'must have "sparse": True, as {of} are class indices, without an axis of {want[-1]} features'
        elif len(shape) == len(want) + 1 and spec.sparse:
            text = f'must not have "sparse": True, as {of} are frames of {shape[-1]} numbers, not class indices'
        elif len(shape) == len(want) and want[:-1] == [None] * (len(want) - 1):
            text = f"`dim` must be {shape[-1]}, the number of features of {of}, but is {want[-1]} instead"
        else:
            text = f"`shape` must be that of {of}, {shape}, but is {tuple(want)} instead"
        raise ConfigError(f'extern_data["{key}"]', text)


def _has_work(device: torch.device) -> Callable[[], bool]:
    """Tells whether the GPU has work: then nothing waits for data. Of a CPU this is not known."""
    return lambda: device.type == "cuda" and not torch.cuda.current_stream(device).query()


def pinned(batch: Batch) -> Batch:
    """The batch with its arrays as tensors in page-locked memory, from where the GPU copies them while it computes;
    texts stay as they are."""
    arrays = {key: value for key, value in batch.data.items() if isinstance(value, np.ndarray)}
    tensors = {key: torch.from_numpy(array).pin_memory() for key, array in arrays.items()}
    return replace(batch, data={**batch.data, **tensors})  # type: ignore[dict-item]  # steps take either
