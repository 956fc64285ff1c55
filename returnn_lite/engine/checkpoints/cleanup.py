"""Which epochs' checkpoints stay, and the removal of the others."""

import glob
import math
import os
from collections.abc import Iterable, Mapping

from returnn_lite.config.option_types import NaturalInt, PositiveInt, option_kinds, wrong_values
from returnn_lite.config.values import parse_literal
from returnn_lite.config_value import ConfigDict, ConfigOptions
from returnn_lite.errors import ConfigError, ConfigErrors, did_you_mean
from returnn_lite.log import Log

DEFAULTS = {"keep_last_n": 2, "keep_best_n": 4, "keep": None}
Scores = Mapping[int, Mapping[str, float]]


def cleanup_options(value: object) -> ConfigOptions | None:
    """Checks `cleanup_old_models` (True or a dict, or its text); None where nothing is to be cleaned up."""
    if isinstance(value, str):
        value = parse_literal("cleanup_old_models", value)
    if not value:
        return None
    if not isinstance(value, dict) and value not in (True,):
        text = f"`cleanup_old_models` must be True, False or a dict of options, but is {value!r} instead"
        raise ConfigError("cleanup_old_models", text)
    given = value if isinstance(value, dict) else {}
    for name in given:
        if name not in DEFAULTS:
            hint = did_you_mean(name, list(DEFAULTS))
            raise ConfigError(f'cleanup_old_models["{name}"]', f'unknown option "{name}"{hint}')
    wrong = wrong_values(option_kinds(epochs_to_keep), given, "cleanup_old_models")
    if wrong:
        raise wrong[0] if len(wrong) == 1 else ConfigErrors(wrong)
    return {**DEFAULTS, **given}


def default_keep_pattern(last: int) -> set[int]:
    """The epochs <= `last` that stay for later comparison: some at a constant distance, some at doubling ones."""
    if last <= 10:
        distance, first = 4, 5
    elif last <= 50:
        distance, first = 20, 5
    elif last <= 100:
        distance, first = 40, 10
    else:
        distance, first = 80 * _next_power_of_two(1 + last // 240), 20
    doubling = {first << i for i in range(last.bit_length()) if first << i <= last}
    return set(range(distance, last + 1, distance)) | doubling


def _next_power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def best_epochs(stored: Iterable[int], scores: Scores, n: int) -> set[int]:
    """For every score key the `n` stored epochs with the lowest value; keys without differences do not count.

    A score that is missing counts as the highest value, NaN as still higher.
    """
    stored, best = sorted(stored), set()
    for key in {key for record in scores.values() for key in record}:
        known = {e: scores[e][key] for e in stored if key in scores.get(e, {})}
        worst = max((value for value in known.values() if not math.isnan(value)), default=math.inf)
        values = {e: known.get(e, worst) for e in stored}
        values = {e: math.inf if math.isnan(value) else value for e, value in values.items()}
        if len(set(values.values())) > 1:
            best.update(sorted(stored, key=lambda e, v=values: (v[e], e))[:n])  # type: ignore[misc]
    return best


def epochs_to_keep(
    stored: Iterable[int],
    scores: Scores,
    *,
    keep_last_n: PositiveInt,
    keep_best_n: NaturalInt,
    keep: Iterable[NaturalInt] | None,
) -> set[int]:
    """The stored epochs that stay: chosen ones, the last, the best of each score, and those without any score yet."""
    stored = sorted(stored)
    wanted = set(keep) if keep is not None else default_keep_pattern(stored[-1])
    wanted |= set(stored[-keep_last_n:]) | best_epochs(stored, scores, keep_best_n)
    return {e for e in stored if e in wanted or not scores.get(e)}


def cleanup_old_models(
    models: Mapping[int, str], scores: Scores, options: ConfigDict, log: Log, *, ask: bool = False
) -> None:
    """Removes the checkpoints (and optimizer states) of the epochs that need not stay.

    models: {epoch: base name}.  `ask`: confirm on standard input; "no" leaves everything and exits with code 1.
    """
    last_n, best_n = int(options["keep_last_n"]), int(options["keep_best_n"])
    if max(last_n, best_n) >= len(models):
        log.v2(
            f"Only {len(models)} epochs stored so far and keeping last {last_n} epochs and best {best_n} epochs,"
            " thus not cleaning up any epochs yet."
        )
        return
    keep = epochs_to_keep(models, scores, keep_last_n=last_n, keep_best_n=best_n, keep=options["keep"])
    remove = sorted(set(models) - keep)
    if not remove:
        log.v2(f"{len(models)} epochs stored so far and keeping all.")
        return
    log.v3(f"We have stored models for epochs {_short(sorted(models))} and keep epochs {sorted(keep)}.")
    log.v3(f"We will delete the models of epochs {_short(remove)}.")
    if ask:
        _confirm()
    size = sum(_remove(models[e]) for e in remove)
    log.v2(f"Deleted {_human(size)}.")


def _confirm() -> None:
    while True:
        answer = input("Delete those models? Confirm? [yes/no]").strip().lower()
        if answer in ("y", "yes"):
            return
        if answer in ("n", "no"):
            raise SystemExit(1)


def _short(epochs: list[int]) -> str:
    """A list of epochs, the middle left out where it is long: [1, 2, 3, ..., 10, 11, 12]."""
    if len(epochs) <= 6:
        return str(epochs)
    return f"[{', '.join(map(str, epochs[:3]))}, ..., {', '.join(map(str, epochs[-3:]))}]"


def _remove(base: str) -> int:
    """Removes all files of one checkpoint; returns their size in bytes."""
    size = 0
    files = [base + suffix for suffix in (".opt.pt", ".avg.pt", ".pt", ".index", ".meta")]
    for path in [*files, *glob.glob(glob.escape(base) + ".data-*")]:
        if os.path.isfile(path):
            size += os.path.getsize(path)
            os.remove(path)
    return size


def _human(size: float) -> str:
    if size < 1024:
        return f"{int(size)}B"
    power = min((int(size).bit_length() - 1) // 10, 4)
    return f"{size / 1024**power:.1f}{'BKMGT'[power]}B"
