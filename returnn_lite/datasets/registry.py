"""Dataset classes by their name in configs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

from returnn_lite.config.config_code import code_place
from returnn_lite.config.option_types import option_kinds, wrong_values
from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log

DATASETS: dict[str, type[Dataset]] = {}

NEEDS_SPRINT = "needs RASR, an external program; write its data to HDF files and use HDFDataset with the same keys"
REFUSED = {  # known names without a class here, and what to do instead
    **dict.fromkeys(("ExternSprintDataset", "SprintDataset", "SprintCacheDataset"), NEEDS_SPRINT),
    "NltkTimitDataset": "would download its data; unpack TIMIT into a folder and use TimitDataset",
    "ClusteringDataset": "is not supported; use MetaDataset with the clusters in an HDFDataset",
    "ChunkShuffleDataset": "is not supported; use the option chunking and a random seq_ordering",
    "ConfusionNetworkDataset": "is not supported; write the networks to HDF files and use HDFDataset",
}

NO_OPTIONS = ("self", "base", "log")  # arguments of constructors that are no options

D = TypeVar("D", bound=type[Dataset])


def dataset(name: str) -> Callable[[D], D]:
    """Makes a Dataset subclass known under its name in configs; the keywords of its `__init__` are its options."""

    def register(cls: D) -> D:
        DATASETS[name] = cls
        return cls

    return register


def own_options(cls: type[Dataset]) -> dict[str, inspect.Parameter]:
    """The options that a dataset class adds to those of every dataset."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        for p in parameters:
            if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in NO_OPTIONS:
                found.setdefault(p.name, p)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):  # else those of the base class are options, too
            break
    return found


SEEDS = ("fixed_random_seed", "random_seed_offset")  # what only the order of an epoch reads


def dataset_class(value: ConfigValue, path: str) -> type[Dataset]:
    """The class for the entry `class` of a dataset dict. Raises ConfigError if there is none."""
    if isinstance(value, type) and issubclass(value, Dataset):
        return value
    if not isinstance(value, str):
        raise ConfigError(f'{path}["class"]', f'dataset class "{value}" not found; `class` must be a name')
    if value in DATASETS:
        return DATASETS[value]
    if value in REFUSED:
        raise ConfigError(f'{path}["class"]', f'dataset class "{value}" {REFUSED[value]}')
    known = f"; known: {', '.join(sorted(DATASETS))}"
    hint = did_you_mean(str(value), [*DATASETS, *REFUSED]) or known
    raise ConfigError(f'{path}["class"]', f'dataset class "{value}" not found{hint}')


def make_dataset(options: ConfigOptions, path: str, log: Log | None = None) -> Dataset:
    """A dataset from its complete options (`class` among them), not yet in an epoch.

    Raises ConfigError for an unknown class, unknown or missing options, and bad values.
    """
    options = dict(options)
    if "class" not in options:
        raise ConfigError(path, f'a dataset dict needs the entry "class", but has only {sorted(options)}')
    cls = dataset_class(options.pop("class"), path)
    own, base = own_options(cls), BaseOptions.names()
    for name in options:
        if name not in own and name not in base:
            known = ", ".join(list(own) + [n for n in base if not n.startswith("_")])
            raise ConfigError(
                f'{path}["{name}"]',
                f"unknown option of {cls.__name__}{did_you_mean(str(name), [*own, *base])}; its options are: {known}",
            )
    needed = {name for name, p in own.items() if p.default is p.empty}
    missing = sorted((needed & set(cls.needed_options(needed))) - set(options), key=list(own).index)
    if missing:
        raise ConfigError(path, f"{cls.__name__} needs the option {', '.join(missing)}")
    kinds = option_kinds(BaseOptions)
    for error in wrong_values({name: kinds[name] for name in SEEDS if name in kinds}, options, path):
        raise error
    shared = {name: value for name, value in options.items() if name in base and name not in own}
    try:
        return cls.from_options(shared, {name: options[name] for name in options if name in own}, log)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as exc:
        if code_place(exc.__traceback__) is not None:  # a function of the config
            raise
        raise ConfigError(path, f"wrong option value for {cls.__name__}: {type(exc).__name__}: {exc}") from exc
