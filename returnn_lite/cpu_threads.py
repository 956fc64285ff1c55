"""How torch's threads share the CPUs with other processes; to be said before torch is imported."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, MutableMapping
from pathlib import Path

THREADS = "OMP_NUM_THREADS"
# How often a thread without work looks for some before it sleeps. By default it looks for milliseconds, in which nobody
# else has its CPU: beside other processes trainings become ten times as long.
SPINS, WAITING = "GOMP_SPINCOUNT", ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
FEW_SPINS = "100"
# numpy's products, where torch has a library of its own. They are small, and made beside a training: a second thread
# gains nothing idle, and waits for its turn on a busy machine (features of audio: 12 times as long).
NUMPY_THREADS, WITH_MKL = "OPENBLAS_NUM_THREADS", ("x86_64", "AMD64")
CGROUPS = Path("/sys/fs/cgroup")


def share_cpus(environ: MutableMapping[str, str]) -> None:
    """Lets threads sleep while they wait, and makes as many as this process may use at a time; what the user has set
    stays."""
    if not any(name in environ for name in WAITING):
        environ[SPINS] = FEW_SPINS
    if platform.machine() in WITH_MKL:
        environ.setdefault(NUMPY_THREADS, "1")
    allowed = usable_cpus()
    if THREADS not in environ and allowed < (os.cpu_count() or allowed):
        environ[THREADS] = str(allowed)


def usable_cpus(own: Path = Path("/proc/self/cgroup"), root: Path = CGROUPS) -> int:
    """The CPUs that the process may run on, or less if its control group has time for less."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(math.ceil(quota) for quota in _quotas(own, root))]))


def _quotas(own: Path, root: Path) -> Iterator[float]:
    """The CPUs' worth of time that control groups allow, from the process's own up to the outermost one."""
    for group in _groups(own, root):
        for name in ("cpu.max", "cpu.cfs_quota_us"):
            words = _words(group / name)
            if name == "cpu.cfs_quota_us" and words:
                words = [*words, *_words(group / "cpu.cfs_period_us")]
            if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
                yield int(words[0]) / int(words[1])


def _groups(own: Path, root: Path) -> Iterator[Path]:
    """The folders of the process's control groups, in both versions, and of those around them."""
    for line in _lines(own):
        _, _, path = line.partition("::") if line.startswith("0::") else line.rpartition(":")
        base = root if line.startswith("0::") else root / "cpu"
        inner = base / path.strip("/")
        yield from (inner, *(parent for parent in inner.parents if parent.is_relative_to(base)))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()
