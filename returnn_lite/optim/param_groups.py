"""`optimizer["param_groups"]`: rules that give some parameters other options, by name, layer or kind.

Every rule is looked at for every parameter; a later rule wins, option by option. Parameters that end up with the same
options share an optimizer, those without any rule have the options of the `optimizer` dict itself.
"""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from returnn_lite.config_value import ConfigDict, ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.params import ParamOwner

SELECTORS = ("params", "layer", "kind", "filter")
KINDS = ("weight", "bias", "norm", "embedding", "recurrent", "conv", "ndim1", "ndim2+")
NORM_CLASSES = {"batch_norm", "layer_norm", "norm", "group_norm", "instance_norm"}
NORM_NAMES = {"scale", "offset", "gamma", "beta"}


@dataclass(frozen=True)
class ParamInfo:
    """What rules ask of a parameter: name, number of axes, its layer ("" if unknown) with class, kinds."""

    name: str
    ndim: int
    layer: str = ""
    layer_class: str = ""
    sparse_input: bool = False
    module: Any = None
    classes: frozenset[str] = frozenset()
    param: Tensor | None = None

    @property
    def parts(self) -> list[str]:
        """The parts of the name: "lstm/rec/W", or "lstm.weight" of a torch module."""
        return self.name.split("/" if "/" in self.name else ".")

    @property
    def role(self) -> str:
        """The last part of the name, such as "W"."""
        return self.parts[-1]

    @property
    def kinds(self) -> set[str]:
        """All of `KINDS` that hold."""
        found = {"ndim1"} if self.ndim == 1 else {"ndim2+"} if self.ndim >= 2 else set()
        words = self.role.split("_")
        if self.layer_class in NORM_CLASSES or self.ndim <= 1 and words[0] in NORM_NAMES:
            return found | {"norm"}
        if {words[0], words[-1]} & {"b", "bias"}:
            return found | {"bias"}
        found.add("weight")
        if self.sparse_input and self.ndim >= 2:
            found.add("embedding")
        if {"re", "recurrent", "hh"} & set(words):
            found.add("recurrent")
        return found | {"conv"} if "conv" in self.layer_class else found


def param_infos(params: Mapping[str, Tensor], network: object = None) -> dict[str, ParamInfo]:
    """What is known of the parameters; without a network only what the names say."""
    owners: Mapping[str, ParamOwner] = getattr(network, "param_owners", dict)()
    found = {}
    for name, param in params.items():
        owner = owners.get(name) or ParamOwner(name.rpartition("/")[0], "", False, None)
        found[name] = ParamInfo(
            name, param.dim(), owner.name, owner.kind, owner.sparse_input, owner.module, owner.classes, param
        )
    return found


@dataclass(frozen=True)
class Rule:
    """One entry: selectors, all of which must hold, and options."""

    path: str
    selectors: ConfigDict
    options: ConfigDict
    optional: bool

    def matches(self, info: ParamInfo) -> bool:
        """Whether the rule is for this parameter."""
        return all(TESTS[key](value, info) for key, value in self.selectors.items())


def _texts(value: ConfigValue) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _by_name(value: ConfigValue, info: ParamInfo) -> bool:
    return any(
        re.fullmatch(text[3:], info.name) is not None
        if text.startswith("re:")
        else fnmatch.fnmatchcase(info.name, text.removeprefix("net."))
        for text in _texts(value)
    )


def _by_layer(value: ConfigValue, info: ParamInfo) -> bool:
    """The layer itself, or one that holds it."""
    parts, between = info.parts, "/" if "/" in info.name else "."
    holders = {between.join(parts[:n]) for n in range(1, len(parts))} | {info.layer}
    return any(fnmatch.fnmatchcase(holder, text) for holder in holders for text in _texts(value))


TESTS: dict[str, Callable[[Any, ParamInfo], bool]] = {
    "params": _by_name,
    "layer": _by_layer,
    "kind": lambda value, info: bool(info.kinds & set(_texts(value))),
    "filter": lambda value, info: bool(value(info.name, info, info.module)),
}


def read_rules(value: ConfigValue, path: str) -> list[Rule]:
    """The list of the config, checked as far as it can be without knowing the optimizer."""
    if not isinstance(value, list | tuple):
        raise ConfigError(path, f"must be a list of dicts, but is {value!r} instead")
    return [_rule(entry, f"{path}[{i}]") for i, entry in enumerate(value)]


def _rule(entry: ConfigValue, path: str) -> Rule:
    if not isinstance(entry, Mapping):
        raise ConfigError(path, f"must be a dict, but is {entry!r} instead")
    selectors = {key: entry[key] for key in SELECTORS if key in entry}
    options = {key: value for key, value in entry.items() if key not in (*SELECTORS, "optional")}
    if not selectors:
        raise ConfigError(
            path, f"must have a selector ({', '.join(SELECTORS)}), but has only {', '.join(entry) or 'nothing'}"
        )
    for key in ("params", "layer", "kind"):
        texts = selectors.get(key, "")
        if not isinstance(texts, str) and not (
            isinstance(texts, list | tuple) and all(isinstance(t, str) for t in texts)
        ):
            raise ConfigError(f'{path}["{key}"]', f"must be a text or a list of texts, but is {texts!r} instead")
    for kind in _texts(selectors.get("kind", [])):
        if kind not in KINDS:
            raise ConfigError(
                f'{path}["kind"]', f"unknown kind {kind!r}{did_you_mean(kind, KINDS)} (known: {', '.join(KINDS)})"
            )
    _check_patterns(selectors, path)
    return Rule(path, selectors, options, bool(entry.get("optional", False)))


def _check_patterns(selectors: ConfigDict, path: str) -> None:
    for text in _texts(selectors.get("params", [])):
        try:
            re.compile(text[3:] if text.startswith("re:") else "")
        except re.error as error:
            raise ConfigError(f'{path}["params"]', f"{text!r} is not a regular expression: {error}") from None
    if "filter" in selectors and not callable(selectors["filter"]):
        raise ConfigError(f'{path}["filter"]', f"must be a function, but is {selectors['filter']!r} instead")


def options_by_param(rules: Sequence[Rule], infos: Mapping[str, ParamInfo]) -> dict[str, tuple[ConfigOptions, str]]:
    """{parameter: (options of all its rules, path of the last of them)}. ConfigError on a rule without parameters."""
    found: dict[str, tuple[ConfigOptions, str]] = {}
    for rule in rules:
        names = [name for name, info in infos.items() if rule.matches(info)]
        if not names and not rule.optional:
            wanted = ", ".join(f"{key} {value!r}" for key, value in rule.selectors.items())
            hint = _similar(rule.selectors, infos)
            raise ConfigError(rule.path, f'no parameter matches {wanted}{hint}; allow that with "optional": True')
        for name in names:
            found[name] = ({**found.get(name, ({}, ""))[0], **rule.options}, rule.path)
    return found


def _similar(selectors: ConfigDict, infos: Mapping[str, ParamInfo]) -> str:
    for key, names in (("params", list(infos)), ("layer", sorted({info.layer for info in infos.values()}))):
        for text in _texts(selectors.get(key, [])):
            if hint := did_you_mean(text, names):
                return hint
    return ""
