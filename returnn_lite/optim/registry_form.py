"""Thinc's registry form: {"@optimizers": "Adam.v1", ...} in a dict, or as a section of a .cfg file."""

import os
from collections.abc import Mapping

from returnn_lite.config import Config
from returnn_lite.config.cfg_form import parse_cfg_tree
from returnn_lite.config_value import ConfigDict, ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.optim.thinc_optimizers import CLASSES, thinc_name

REGISTRY = "@optimizers"
REGISTRIES = (REGISTRY, "@schedules")
PLACES = ("optimizer", "training.optimizer")  # where the section is looked for


def class_of_registry(options: ConfigDict, path: str) -> ConfigOptions:
    """The dict with "class" in place of "@optimizers"."""
    keys = [key for key in options if isinstance(key, str) and key.startswith("@")]
    if keys != [REGISTRY]:
        hint = did_you_mean(keys[0], REGISTRIES)
        raise ConfigError(f'{path}["{keys[0]}"]', f'must be the only key with @ and be "{REGISTRY}"{hint}')
    text = options[REGISTRY]
    name = thinc_name(text) if isinstance(text, str) else None
    if name is None:
        known = [f"{key}.v1" for key in CLASSES]
        hint = did_you_mean(str(text), known)
        raise ConfigError(f'{path}["{REGISTRY}"]', f"unknown optimizer {text!r}{hint} (known: {', '.join(known)})")
    return {"class": f"thinc.{name}", **{key: value for key, value in options.items() if key != REGISTRY}}


def optimizer_section(text: str, config: Config) -> ConfigOptions | None:
    """The section of "file.cfg" or "file.cfg:section.sub" as a dict; None if the text names no such file.

    The file is looked for beside the config file, then in the working directory.
    """
    filename, colon, section = text.partition(".cfg")
    if not colon or section and not section.startswith(":"):
        return None
    filename += ".cfg"
    beside = os.path.join(os.path.dirname(str(config.typed.get("__file__", ""))), filename)
    found = next((path for path in (beside, filename) if os.path.isfile(path)), None)
    if found is None:
        raise ConfigError("optimizer", f"file {filename!r} does not exist")
    with open(found, encoding="utf-8") as file:
        tree = parse_cfg_tree(found, file.read())
    return _section(tree, [section[1:]] if section else list(PLACES), found)


def _section(tree: ConfigDict, places: list[str], filename: str) -> ConfigOptions:
    for place in places:
        part: ConfigValue = tree
        for name in place.split("."):
            part = part.get(name) if isinstance(part, Mapping) else None
        if isinstance(part, Mapping):
            return dict(part)
    names = [name for name, value in tree.items() if isinstance(value, Mapping)]
    hint = did_you_mean(places[0], names)
    raise ConfigError(filename, f"must have a section [{places[0]}], but has {', '.join(names) or 'none'}{hint}")
