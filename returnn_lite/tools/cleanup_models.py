"""Deletes models that are not worth keeping: `cleanup-old-models.py --config my.config`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from returnn_lite.config import Config, load_config
from returnn_lite.engine.checkpoints.cleanup import cleanup_old_models, cleanup_options, epochs_to_keep
from returnn_lite.engine.checkpoints.find import existing_models
from returnn_lite.errors import ConfigError
from returnn_lite.schedule.lr_file import read
from returnn_lite.tools.common import stderr_log, tool


def base_name(args: argparse.Namespace, config: Config) -> str:
    """The base name of the models; ConfigError without one, or where there are no models."""
    model = args.model or config.value("model", None)
    if not model:
        raise ConfigError("--model", "must be given, or --config with the option `model`")
    if not existing_models(model, 0):
        raise ConfigError("--model", f"no models with this name: {model}")
    return str(model)


def scores_of(args: argparse.Namespace, config: Config) -> dict[int, dict[str, float]]:
    """{epoch: {key: score}} of the learning-rate file, which must exist."""
    name = args.learning_rate_file or config.value("learning_rate_file", None)
    if not name:
        text = (
            "must be given, or --config with the option `learning_rate_file`: the best models are known by its scores"
        )
        raise ConfigError("--learning_rate_file", text)
    if not os.path.isfile(name):
        raise ConfigError("--learning_rate_file", f"file {name} does not exist")
    return {epoch: dict(record.error) for epoch, record in read(name).items()}


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="cleanup-old-models.py",
        description="Deletes the models of all epochs but the last, the best of each score, and some for comparison;"
        " asks before it does.",
    )
    add = parser.add_argument
    add("--config", help="a config file, for `model`, `learning_rate_file` and `cleanup_old_models`")
    add("--model", help="the base name of the models (that of the config)")
    add("--learning_rate_file", metavar="FILE", help="the file with the scores (that of the config)")
    add("--keep_last_n", type=int, help="number of last epochs to keep (2)")
    add("--keep_best_n", type=int, help="number of best epochs to keep for each score (4)")
    add("--keep", type=int, nargs="*", help="epochs to keep, instead of the pattern for comparison")
    add("--dry_run", action="store_true", help="only prints which epochs would be kept and deleted")
    add("--yes", action="store_true", help="does not ask")
    args = parser.parse_args(argv)
    config = load_config([args.config]) if args.config else Config()
    model, scores = base_name(args, config), scores_of(args, config)
    given = {name: getattr(args, name) for name in ("keep_last_n", "keep_best_n", "keep")}
    configured = cleanup_options(config.bool_or_other("cleanup_old_models", None) or True) or {}
    options = cleanup_options({**configured, **{name: value for name, value in given.items() if value is not None}})
    models = existing_models(model, 0)
    if args.dry_run:
        keep = epochs_to_keep(models, scores, **(options or {}))
        print(f"to keep: {sorted(keep)}\nto delete: {sorted(set(models) - keep)}")
        return
    if not args.yes and not sys.stdin.isatty():
        raise ConfigError("--yes", "must be given where no terminal can ask for confirmation")
    cleanup_old_models(models, scores, options or {}, stderr_log(3), ask=not args.yes)
