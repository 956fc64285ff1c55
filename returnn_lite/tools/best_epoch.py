"""The epoch with the lowest score in a learning rate file: `get-best-model-epoch.py FILE [--key dev_score]`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence

from returnn_lite.engine.checkpoints.find import existing_models
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.schedule.lr_file import Record, read
from returnn_lite.schedule.scores import choose_error_key
from returnn_lite.tools.common import tool


def best_epoch(epochs: Mapping[int, Record], key: str | None) -> tuple[int, str]:
    """(the epoch with the lowest value, the key); of equal ones the first. Without `key`, that which training goes by.

    Raises ConfigError if no epoch has the key.
    """
    known = sorted({name for record in epochs.values() for name in record.error})
    found = key or choose_error_key({name: 0.0 for name in known}, [])
    scores = {epoch: record.error[found] for epoch, record in sorted(epochs.items()) if found in record.error}
    scores = {epoch: score for epoch, score in scores.items() if not math.isnan(score)}
    if found is None or not scores:
        hint = did_you_mean(key or "", known)
        raise ConfigError("--key", f'no epoch has the score "{found}"{hint}; known: {", ".join(known) or "none"}')
    return min(scores, key=lambda epoch: scores[epoch]), found


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="get-best-model-epoch.py",
        description="Prints the epoch with the lowest score, and with --model its model's name.",
    )
    parser.add_argument("file", help="the learning rate file")
    parser.add_argument("--key", help="the score (the one that training uses: dev_score, …)")
    parser.add_argument("--model", help="the config's `model`: only epochs whose model files exist are considered")
    args = parser.parse_args(argv)
    epochs = read(args.file)
    models = existing_models(args.model, 0)
    if args.model:
        epochs = {epoch: record for epoch, record in epochs.items() if epoch in models}
        if not epochs:
            raise ConfigError("--model", f"no model exists for the epochs in {args.file}: {args.model}")
    epoch, _ = best_epoch(epochs, args.key)
    print(models[epoch] if args.model else epoch)
