"""What torchrun, or any launcher that sets the same variables, says of the processes of a training."""

from __future__ import annotations

from collections.abc import Mapping

from returnn_lite.config.values import to_int
from returnn_lite.errors import ConfigError

MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # the number of processes, by MPI's launchers
NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def env_int(environ: Mapping[str, str], name: str, default: int) -> int:
    """An int of the environment; the default where it is not set or empty. ConfigError if it is none."""
    return to_int(_path(name), environ.get(name) or default)


def processes(environ: Mapping[str, str]) -> tuple[int, int]:
    """(rank, number) of the processes that were started."""
    return env_int(environ, "RANK", 0), env_int(environ, "WORLD_SIZE", 1)


def check_launcher(environ: Mapping[str, str]) -> None:
    """ConfigError for one of several processes that MPI started: each would train, and all would write the same; and
    for variables that contradict each other."""
    size = env_int(environ, "WORLD_SIZE", 1)
    count = max(env_int(environ, name, 1) for name in MPI_SIZES)
    if count > 1 and "WORLD_SIZE" not in environ:
        raise ConfigError("", f"{count} processes started by mpirun are not supported; use torchrun, or a single one")
    if size < 1:
        raise ConfigError(_path("WORLD_SIZE"), f"must be at least 1, but is {size} instead")
    _check_below(environ, "RANK", "WORLD_SIZE", size)
    if environ.get("LOCAL_WORLD_SIZE"):
        _check_below(environ, "LOCAL_RANK", "LOCAL_WORLD_SIZE", env_int(environ, "LOCAL_WORLD_SIZE", 1))
    missing = [name for name in NEEDED if size > 1 and not environ.get(name)]
    if missing:
        text = f"must be set, since WORLD_SIZE is {size}; torchrun sets all of {', '.join(NEEDED)}"
        raise ConfigError(_path(missing[0]), text)


def _check_below(environ: Mapping[str, str], name: str, bound: str, size: int) -> None:
    rank = env_int(environ, name, 0)
    if 0 <= rank < size:
        return
    known = bound if environ.get(bound) else f"{bound} (1, as it is not set)"
    raise ConfigError(_path(name), f"must be at least 0 and less than {known} {size}, but is {rank} instead")


def _path(name: str) -> str:
    return f"environment variable {name}"
