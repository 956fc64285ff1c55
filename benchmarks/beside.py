#!/usr/bin/env python3
"""The other benchmarks on idle CPUs and beside a busy process: how many times as long each runs.

All run with torch's threads on all CPUs, and with what `rnn.py` sets for them (`cpu_threads.py`). The smaller of two
times counts; it includes the baselines, which share the CPUs in the same way.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from returnn_lite.cpu_threads import share_cpus, usable_cpus  # noqa: E402

GOAL = 2.2
THREADS = f"--threads {usable_cpus()}"
SCRIPTS = {
    "train_blstm": f"--rounds 1 {THREADS}",
    "train_masked_blstm": f"--rounds 1 {THREADS}",
    "train_attention": f"--rounds 2 {THREADS}",
    "train_transformer": f"--rounds 1 {THREADS}",
    "train_conformer": f"--rounds 1 {THREADS}",
    "frontend": f"--rounds 2 --steps 2 {THREADS}",
    "frontend_search": f"--rounds 3 {THREADS}",
    "search": f"--rounds 3 {THREADS}",
    "layer_overhead": THREADS,
    "memory_blstm": f"--steps 2 {THREADS}",
    "memory_conformer": f"--frames 800 {THREADS}",
    "optimizers": f"--rounds 3 --steps 5 {THREADS}",
    "startup": "--rounds 2",
    "data": "--seqs 3000000 --hdf-seqs 300000 --read-seqs 20000",
}
BUSY = """
import numpy
values = numpy.random.rand(300, 300)
while True:
    values = values @ values
    values /= abs(values).max()
"""


def seconds(name: str, environ: dict[str, str]) -> float:
    """Wall-clock time of a whole run of a script."""
    start = time.perf_counter()
    words = [sys.executable, str(HERE / f"{name}.py"), *SCRIPTS[name].split()]
    subprocess.run(words, env=environ, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Prints a line for each script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help=f"of {', '.join(SCRIPTS)}; default: all")
    parser.add_argument("--busy", type=int, default=1, help="busy processes, default %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each, default %(default)s")
    args = parser.parse_args()
    if unknown := set(args.scripts) - set(SCRIPTS):
        parser.error(f"unknown script {sorted(unknown)[0]}; choose from {', '.join(SCRIPTS)}")
    environ = dict(os.environ)
    share_cpus(environ)
    alone = {**environ, "OPENBLAS_NUM_THREADS": "1"}
    for name in args.scripts or SCRIPTS:
        idle = min(seconds(name, environ) for _ in range(args.rounds))
        others = [subprocess.Popen([sys.executable, "-c", BUSY], env=alone) for _ in range(args.busy)]
        try:
            beside = min(seconds(name, environ) for _ in range(args.rounds))
        finally:
            for other in others:
                other.kill()
        print(f"{name}: idle {idle:.1f} s, beside {args.busy} {beside:.1f} s: {beside / idle:.2f} times", flush=True)
    print(f"goal beside one: at most {GOAL} times")


if __name__ == "__main__":
    main()
