"""Datasets from the values that configs give them: dicts, functions, texts, lists of files."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.registry import DATASETS, NEEDS_SPRINT, REFUSED, make_dataset
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log

CONFIG_PREFIX = "config:"
SEED_STEP_PER_RANK = 16127
EVALUATED = ("dev", "eval")  # in the same order in all processes


@dataclass(frozen=True)
class DatasetDefaults:
    """Options for a dataset that does not set them itself.

    `role` are those for the use as dev or eval set, `config` those from the config's global options; datasets that a
    function or a "config:…" text gives see only the former.
    """

    role: ConfigOptions = field(default_factory=dict)
    config: ConfigOptions = field(default_factory=dict)

    @property
    def all(self) -> ConfigOptions:
        """Both; the role's win."""
        return {**self.config, **self.role}


def dataset_defaults(config: Config, role: str) -> DatasetDefaults:
    """What the config's options mean for the dataset `role`: "train", "dev" or "eval". Others get no defaults."""
    if role not in ("train", "dev", "eval"):
        return DatasetDefaults()
    of_role: ConfigOptions = shard(config, os.environ)
    if role != "train":
        of_role = {"chunking": _eval_chunking(config), "seq_ordering": "sorted", "shuffle_frames_of_nseqs": 0}
    options = {
        "window": config.int("window", 0) or None,
        "context_window": config.literal("context_window"),
        "chunking": config.opt_typed_value("chunking"),
        "seq_ordering": config.opt_typed_value("batching"),
        "shuffle_frames_of_nseqs": config.int("shuffle_frames_of_nseqs", 0) or None,
        "min_chunk_size": config.number_or_dict("min_chunk_size", 0) or None,
        "chunking_variance": config.float("chunking_variance", 0),
    }
    return DatasetDefaults(of_role, {name: value for name, value in options.items() if value is not None})


def _eval_chunking(config: Config) -> ConfigValue:
    chunking = config.opt_typed_value("chunking", "0")
    if config.value("on_size_limit", "ignore") == "chunk":
        return config.opt_typed_value("batch_size", "0")
    if str(chunking) == "1":
        return "1"
    return chunking if config.bool("chunk_eval", False) else "0"


def init_dataset(
    value: ConfigValue,
    *,
    name: str = "dataset",
    config: Config | None = None,
    defaults: DatasetDefaults | ConfigOptions | None = None,
    log: Log | None = None,
) -> Dataset:
    """A dataset from any form of value, ready for `init_seq_order`.

    Forms: a dict with "class", a function giving one, "{…}" (Python), "config:<expression>", "Class:key=value,…", HDF
    files separated by commas, or a Dataset itself. `config` gives the names for expressions. Raises ConfigError.
    """
    if isinstance(value, Dataset):
        return value
    if not isinstance(defaults, DatasetDefaults):
        defaults = DatasetDefaults(config=dict(defaults or {}))
    given, default = _options(value, name, config, defaults)
    defaulted = frozenset(name for name in default if given.get(name) is None)
    options = {**given, **{name: default[name] for name in defaulted}}
    options["name"] = str(options.get("name") or name)
    if options.get("distrib_shard_files"):  # all processes must have the same order of files
        options["random_seed_offset"] = given.get("random_seed_offset") or 0
    if options.get("random_seed_offset") is None:
        options["random_seed_offset"] = default_seed_offset(config, name)
    made = make_dataset(options, name, log)
    made.defaulted = defaulted
    made.initialize()
    return made


def _options(
    value: ConfigValue, name: str, config: Config | None, defaults: DatasetDefaults
) -> tuple[ConfigOptions, ConfigOptions]:
    """The options as a dict, and the defaults of those that are not given, or None."""
    if callable(value):
        return _checked(value(), name), defaults.role
    if isinstance(value, str) and value.startswith(CONFIG_PREFIX):
        found = evaluate(value[len(CONFIG_PREFIX) :], name, config)
        given = _checked(found() if callable(found) else found, name)
        return {key: option for key, option in given.items() if key not in defaults.role}, defaults.role
    if isinstance(value, str):
        value = _from_text(value.strip(), name, config)
    return _checked(value, name), defaults.all


def _checked(value: ConfigValue, name: str) -> ConfigOptions:
    if not isinstance(value, dict):
        raise ConfigError(
            name, f"must be a dataset dict, a function that returns one, or a text, but is {value!r} instead"
        )
    return value


def _from_text(text: str, name: str, config: Config | None) -> ConfigOptions:
    if text.startswith("{"):
        return _checked(evaluate(text, name, config), name)
    head, colon, rest = text.partition(":")
    if colon and head == "sprint":
        raise ConfigError(name, f'"sprint:…" {NEEDS_SPRINT}')
    if colon and (head in DATASETS or head in REFUSED or head.isidentifier() and head[0].isupper() and "=" in rest):
        return {"class": head, **_keywords(rest, name)}
    files = [part.strip() for part in text.split(",") if part.strip()]
    if not files:
        raise ConfigError(name, "must name a dataset, but is empty")
    return {"class": "HDFDataset", "files": files}


def _keywords(text: str, name: str) -> ConfigOptions:
    """The keyword arguments in "key=value, key2=value2"."""
    try:
        call = ast.parse(f"dict({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("only key=value pairs are possible")
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as exc:
        raise ConfigError(name, f'the options "{text}" must be key=value, … with plain Python values: {exc}') from None


def evaluate(expression: str, name: str, config: Config | None) -> ConfigValue:
    """The value of a Python expression with the config's names; raises ConfigError if it fails."""
    try:
        return eval(expression, {} if config is None else config.typed)  # a config is Python code anyway
    except Exception as exc:
        raise ConfigError(name, f'"{expression}" cannot be evaluated: {type(exc).__name__}: {exc}') from exc


def shard(config: Config, environ: Mapping[str, str]) -> dict[str, int]:
    """The options that give each process of a distributed training its part of the sequences.

    None of them with `torch_distributed`, unless that says "data": "shares": all go through all sequences, in other
    orders.
    """
    size = world_size(environ)
    if size == 1 or sees_all_data(config):
        return {}
    return {"_num_shards": size, "_shard_index": rank(environ)}


def world_size(environ: Mapping[str, str]) -> int:
    """Processes of a distributed training."""
    return int(environ.get("WORLD_SIZE") or 1)


def rank(environ: Mapping[str, str]) -> int:
    """The number of this process in a distributed training."""
    return int(environ.get("RANK") or 0)


def sees_all_data(config: Config) -> bool:
    """Whether each process of a distributed training goes through all sequences."""
    value = config.typed_value("torch_distributed")
    return value is not None and not (isinstance(value, Mapping) and value.get("data") == "shares")


def default_seed_offset(config: Config | None, name: str) -> int:
    """Offset of the epoch seed where the dataset `name` sets none: for the training data it differs per rank of a
    distributed training where all have all sequences, else 0."""
    if config is None:
        return 0
    from_environment = os.environ.get("RETURNN_RANDOM_SEED_OFFSET")
    if from_environment:
        return int(from_environment)
    if not sees_all_data(config) or name in EVALUATED:
        return 0
    return rank(os.environ) * SEED_STEP_PER_RANK
