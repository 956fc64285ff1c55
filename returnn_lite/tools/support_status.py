"""What becomes of a name that configs use: supported, refused and why, or without effect; by the code's own tables."""

from __future__ import annotations

import builtins
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

import returnn_lite.catalog  # noqa: F401  (fills the registers)
from returnn_lite.compat.config_imports import contents, is_known
from returnn_lite.compat.module_names import MODULES, OLD_NAMES
from returnn_lite.compat.refusals import is_refused
from returnn_lite.compat.tf import eval_names
from returnn_lite.config import KNOWN_KEYS
from returnn_lite.config.options import IGNORED_KEYS, REFUSED_KEYS
from returnn_lite.datasets import BaseOptions
from returnn_lite.datasets.registry import DATASETS
from returnn_lite.datasets.registry import REFUSED as REFUSED_DATASETS
from returnn_lite.datasets.registry import own_options as dataset_options
from returnn_lite.engine.models.pretrain import PretrainOptions
from returnn_lite.errors import ConfigError
from returnn_lite.layers.activations import activation
from returnn_lite.layers.core import legacy
from returnn_lite.layers.core import refused as refused_layers
from returnn_lite.layers.core.init import initializer
from returnn_lite.layers.core.options import CommonOptions
from returnn_lite.layers.core.registry import layer_class, layer_names, own_options
from returnn_lite.losses.base import REFUSED as REFUSED_LOSSES
from returnn_lite.losses.base import CommonLossOptions, loss_class, loss_names
from returnn_lite.rec.cells.lookup import UNITS, resolve_unit
from returnn_lite.vocab.create import VOCABULARIES, option_names

SUPPORTED = "supported"
NO_EFFECT = "no effect"
NO_OPTION = "a variable of the config"
Marker = Callable[[str], str]


def refused(reason: str) -> str:
    """The mark of what is refused."""
    return f"refused: {reason}"


def _of_table(known: Collection[str], why: Mapping[str, str], kind: str) -> Marker:
    def mark(name: str) -> str:
        return SUPPORTED if name in known else refused(why.get(name, f"unknown {kind}"))

    return mark


def _checked(check: Callable[[str], Any]) -> Marker:
    """Supported is what can be made."""

    def mark(name: str) -> str:
        try:
            check(name)
        except (ConfigError, AttributeError) as error:
            return refused(getattr(error, "message", str(error)))
        return SUPPORTED

    return mark


def mark_layer(name: str) -> str:
    """A layer class."""
    if name in layer_names():
        return SUPPORTED
    reason, instead = refused_layers.REFUSED.get(name, ("unknown", ""))
    return refused(f"{reason}; use {instead}")


def layer_option_marker(layer: str) -> Marker:
    """The options of a layer class; of a refused one all are."""
    if layer not in layer_names():
        return lambda name: refused("the layer is")
    own = {*own_options(layer_class(layer, layer)), *(field.name.rstrip("_") for field in fields(CommonOptions))}
    plain = _of_table({*own, *legacy.RENAMED.get(layer, {})}, legacy.REFUSED, "option")
    ignored = {**legacy.NO_EFFECT[""], **legacy.NO_EFFECT.get(layer, {})}
    return lambda name: NO_EFFECT if name in ignored and name not in own else plain(name)


def dataset_option_marker(name: str) -> Marker:
    """The options of a dataset or vocabulary class."""
    if name in VOCABULARIES:
        return _of_table(option_names(VOCABULARIES[name]), {}, "option")
    if name not in DATASETS:
        return lambda option: refused("the dataset is")
    return _of_table({*dataset_options(DATASETS[name]), *BaseOptions.names()}, {}, "option")


def mark_unit(name: str) -> str:
    """A unit, with the layer class that it stands in: `rec:lstm`."""
    layer, _, unit = name.partition(":")
    return _checked(lambda _: resolve_unit(unit, single_step=layer == "rnn_cell"))(name)


def keywords(function: Callable[..., Any]) -> set[str]:
    """The names of the keyword-only parameters."""
    return {name for name, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY}


def mark_global(name: str) -> str:
    """A global option."""
    if name in REFUSED_KEYS:
        return refused(REFUSED_KEYS[name])
    if name in IGNORED_KEYS:
        return NO_EFFECT
    return SUPPORTED if name in KNOWN_KEYS else NO_OPTION


def mark_module(name: str) -> str:
    """A module that configs import."""
    if is_known(name):
        return "a stand-in" if OLD_NAMES.get(name, name) not in MODULES or contents_of(name) else "importable, empty"
    if name.partition(".")[0] in sys.stdlib_module_names:
        return "standard library"
    return SUPPORTED if name == "numpy" else "must be installed or importable from the config's folder"


def contents_of(module: str) -> Mapping[str, Any]:
    """The names of a stand-in."""
    found = contents(OLD_NAMES.get(module, module))
    return found if isinstance(found, Mapping) else vars(found)


def mark_import(name: str) -> str:
    """A name that configs import from a stand-in: `TFUtil:where_bc`."""
    module, _, member = name.partition(":")
    found = contents_of(module).get(member)
    if found is None:
        return refused("not supported")
    return refused(found.refusal.partition(": ")[2]) if is_refused(found) else SUPPORTED


@cache
def _names() -> dict[str, Any]:
    return eval_names()


def _resolve(name: str) -> Any:
    """A name with dots in the scope of an eval string."""
    first, *rest = name.split(".")
    found = _names().get(first, getattr(builtins, first, None))
    for part in rest:
        found = getattr(found, part)
    if found is None:
        initializer({"class": name})  # expressions of initial values have names of their own
    return found


def mark_function(name: str) -> str:
    """A function that expressions call."""
    return SUPPORTED if name in ("source", "max_len_from") else _checked(_resolve)(name)


def markers() -> dict[str, Marker]:
    """The marker of each kind of name; "options of X" and "options of layer X" are made by `marker_of`."""
    losses = {name for loss in loss_names() for name in keywords(loss_class(loss))}
    losses |= {field.name for field in fields(CommonLossOptions)}
    return {
        "layers": mark_layer,
        "units": mark_unit,
        "options of units": _of_table({name for unit in UNITS.values() for name in keywords(unit)}, {}, "option"),
        "losses": _of_table(loss_names(), REFUSED_LOSSES, "loss"),
        "options of losses": _of_table(losses, {}, "option"),
        "activations": _checked(lambda name: activation(name, _names())),
        "initializers": _checked(lambda name: initializer({"class": name})),
        "functions in expressions": mark_function,
        "names of TensorFlow in functions": _checked(_resolve),
        "helpers imported by functions": mark_import,
        "imported modules": mark_module,
        "global options": mark_global,
        "global options of PyTorch models": mark_global,
        "global names that only configs use": mark_global,
        "options of pretrain": _of_table({field.name for field in fields(PretrainOptions)}, {}, "option"),
        "datasets and vocabularies": _of_table({*DATASETS, *VOCABULARIES}, REFUSED_DATASETS, "class"),
    }


def marker_of(kind: str) -> Marker:
    """The marker of a kind of name. KeyError for an unknown kind."""
    found = markers().get(kind)
    if found is not None:
        return found
    of, _, name = kind.rpartition(" ")
    return {"options of layer": layer_option_marker, "options of": dataset_option_marker}[of](name)
