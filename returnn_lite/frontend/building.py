"""What encoders and decoders are given as a class, a dict, a module or a function, made into modules."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping

from returnn_lite.config_value import ConfigValue
from returnn_lite.frontend.build_from_dict import build_from_dict
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.types import Part
from returnn_lite.not_specified import NotSpecified

DEFAULT_DIM = Dim(512, name="default-model-dim")


def make_norm(norm: ConfigValue, out_dim: Dim) -> Part:
    """A normalization of an axis: a class or dict is built, a module copied, a function taken as it is."""
    return made(norm, "norm", out_dim)


def made(given: ConfigValue, what: str, *args: ConfigValue, **options: ConfigValue) -> Part:
    """The object of a class, or of a dict (whose keys win) with these arguments; a copy of a module; a function."""
    if isinstance(given, type):
        return given(*args, **options)
    if isinstance(given, Mapping):
        return build_from_dict(given, *args, **{key: value for key, value in options.items() if key not in given})
    if isinstance(given, Module):
        return copy.deepcopy(given)
    if callable(given):
        return given
    raise WrongUse(f"`{what}` must be a class, a dict from rf.build_dict, a module or a function, but is {given!r}")


def made_self_att(
    given: ConfigValue,
    default: type,
    *,
    out_dim: Dim,
    num_heads: int | Dim,
    att_dropout: float,
    options: Mapping[str, ConfigValue] | None = None,
) -> Part:
    """The self-attention of a layer: built of a class or dict, whose keys win over `options`; others as they are."""
    if given is not None and not isinstance(given, type | Mapping) and callable(given):
        return given
    heads = {"key_dim_total": out_dim, "value_dim_total": out_dim, "num_heads": num_heads, "att_dropout": att_dropout}
    own = {"in_dim": out_dim, "proj_dim": out_dim, **heads, **(options or {})}
    return made(default if given is None else given, "self_att", **own)


def specified(**options: ConfigValue) -> dict[str, ConfigValue]:
    """Those that are given."""
    return {key: value for key, value in options.items() if value is not NotSpecified}


def as_dim(size: int | Dim, name: str) -> Dim:
    """An axis, of a number."""
    return size if isinstance(size, Dim) else Dim(int(size), name=name)


def activation_of(given: ConfigValue, default: Part) -> Part:
    """A function, of a function or dict, or the default."""
    if given is NotSpecified or given is None:
        return default
    if isinstance(given, Mapping):
        return build_from_dict(given)
    if not callable(given):
        raise WrongUse(f"an activation must be a function or a dict from rf.build_dict, but is {given!r} instead")
    return given() if isinstance(given, type) else given


def positions_of(given: ConfigValue, feat_dim: Dim) -> Part:
    """What encodes positions with `feat_dim` features: a function gets it, a dict is built with it; None stays."""
    if given is None or isinstance(given, Module):
        return given
    if isinstance(given, Mapping):
        return build_from_dict(given, feat_dim=feat_dim)
    if isinstance(given, type):
        return given(feat_dim=feat_dim)
    if callable(given):
        return functools.partial(given, feat_dim=feat_dim)
    raise WrongUse(f"`pos_enc` must be a function, a dict, a module or None, but is {given!r} instead")


def stacked(sequential: Part, template: Part, count: int) -> Part:
    """Copies of a layer one after the other, each with initial values of its own."""
    layers = [copy.deepcopy(template) for _ in range(count)]
    if isinstance(sequential, Mapping):
        return build_from_dict(sequential, layers)
    return sequential(layers)
