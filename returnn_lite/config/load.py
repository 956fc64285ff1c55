"""The order in which config files and command-line options are applied."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.config import Config


def load_config(files: Sequence[str], overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """The options of a run; see `load_into`."""
    config = Config()
    load_into(config, files, overrides)
    return config


def load_into(config: Config, files: Sequence[str], overrides: Sequence[tuple[str, str]] = ()) -> None:
    """Applies the overrides, then the files in order (a later one wins), then the overrides again.

    So a config file sees the command line while it is executed (as untyped text: `config.value("task", "train")`), and
    the command line wins in the end, now read by the kind of value that the config gave the option. Of the tasks
    `to_torch` and `export` it sees the one that runs the same network.
    """
    _apply(config, overrides)
    task = config.value("task", "")
    if task in ("to_torch", "export"):
        config.set_text("task", to_torch_runs(config) if task == "to_torch" else export_runs(config))
    for filename in files:
        config.load_file(filename)
    _apply(config, overrides)
    config.settle(overrides)
    for key in config.ignored_keys():
        text = config.value(key, "")
        how = f"to have it honoured, give ++{key} {text} on the command line, or use a Python config"
        config.warnings.append(f"WARNING: `{key} {text}` of a line-based config is ignored, as RETURNN does; {how}")
    config.warnings[:] = dict.fromkeys(config.warnings)  # each one once


def to_torch_runs(config: Config) -> str:
    """The task that runs the network that `to_torch` writes."""
    return "search" if config.is_true("to_torch_search") else config.value("to_torch_network", "forward")


def export_runs(config: Config) -> str:
    """The task that runs the network that `export` writes."""
    return "search" if config.value("export_loop", "") else "forward"


def _apply(config: Config, overrides: Sequence[tuple[str, str]]) -> None:
    for key, text in overrides:
        config.set_text(key, text)
