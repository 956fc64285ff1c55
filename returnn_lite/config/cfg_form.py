"""The `.cfg` form: sections of `key = JSON value`, nested by dots, with ${section.key}; read by confection."""

from __future__ import annotations

import configparser

from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError

TOP = ("training", "options")  # sections whose keys are options by themselves


def looks_like_cfg(filename: str, text: str) -> bool:
    """Whether a file is of this form: a name in .cfg, and a section before anything else."""
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line and line[0] not in "#;"), "")
    return filename.endswith(".cfg") and first.startswith("[")


def parse_cfg_tree(filename: str, text: str) -> ConfigOptions:
    """The sections as nested dicts, variables filled in. ConfigError on a file that confection refuses."""
    try:
        from confection import Config as Tree
        from confection import ConfigValidationError
    except ImportError:
        raise ConfigError(filename, 'a .cfg file needs the package confection; install the extra "thinc"') from None
    try:
        tree = Tree().from_str(text)
    except (ConfigValidationError, configparser.Error, ValueError) as exc:
        raise ConfigError(filename, f"invalid .cfg content, {' '.join(str(exc).split())}") from None
    return {key: _plain(value) for key, value in tree.items()}


def _plain(value: ConfigValue) -> ConfigValue:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def parse_cfg(filename: str, text: str) -> ConfigOptions:
    """The options of a whole config: every section is one, but of [training] and [options] every key is."""
    tree = parse_cfg_tree(filename, text)
    options = {key: value for key, value in tree.items() if key not in TOP}
    for section in TOP:
        for key, value in tree.get(section, {}).items():
            if key in options:
                raise ConfigError(filename, f"the option {key!r} is given twice: [{key}] and in [{section}]")
            options[key] = value
    return options
