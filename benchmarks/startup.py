"""Start-up times: `import torch` alone, `rnn.py --help`, a whole one-epoch training on 20 tiny sequences, and `--check`
of a recipe of real size (a conformer of 12 blocks, 75 million parameters).

    python benchmarks/startup.py [--rounds 5]

Each is a process of its own, started in turn so that a busy moment of the machine hits all alike; the best round
counts. Prints seconds, and the figures that have goals: `--help` below 0.4 s, the training at most 1.5 s more than
`import torch`, the check at most 5 s more.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RNN = ROOT / "rnn.py"
RECIPE = ROOT / "configs" / "ctc_conformer.config"
# What stands behind the recipe: data of its own.
DATA = """#!rnn.py
import numpy

seqs = [{"data": numpy.ones((200, 80), "float32"), "classes": numpy.arange(20, dtype="int32")} for _ in range(2)]
sizes = {"data": (80, 2), "classes": (1057, 1)}
train = dev = search_data = {"class": "StaticDataset", "data": seqs, "output_dim": sizes}
del extern_data["classes"]["vocab"]
"""

CONFIG = """#!rnn.py
import numpy

def sequences(count):
    rng = numpy.random.RandomState(1)
    lengths = rng.randint(3, 9, size=count)
    return [{"data": rng.normal(size=(n, 4)).astype("float32"), "classes": rng.randint(0, 3, n).astype("int32")}
            for n in lengths]

task = "train"
use_tensorflow = True
device = "cpu"
num_inputs = 4
num_outputs = {"data": (4, 2), "classes": (3, 1)}
train = {"class": "StaticDataset", "data": sequences(20), "output_dim": num_outputs}
network = {
    "lstm": {"class": "rec", "unit": "lstm", "n_out": 8, "from": "data"},
    "output": {"class": "softmax", "loss": "ce", "from": "lstm"},
}
batch_size = 100
optimizer = {"class": "adam"}
learning_rate = 0.001
num_epochs = 1
model = "net"
learning_rate_file = "newbob.data"
"""


def seconds(command: list[str], folder: str) -> float:
    """Wall-clock seconds of one process; its output is shown only when it fails."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)
    elapsed = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return elapsed


def measure(rounds: int) -> dict[str, float]:
    """Best seconds of each command over some rounds; every training starts in an empty folder."""
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "rnn.py --help": [sys.executable, str(RNN), "--help"],
        "one epoch, 20 sequences": [sys.executable, str(RNN), "train.config"],
        "check of a conformer": [sys.executable, str(RNN), str(RECIPE), "data.config", "--check"],
    }
    best = dict.fromkeys(commands, float("inf"))
    for _ in range(rounds):
        for name, command in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "train.config").write_text(CONFIG)
                Path(folder, "data.config").write_text(DATA)
                best[name] = min(best[name], seconds(command, folder))
    return best


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description="Start-up times of rnn.py beside `import torch`.")
    parser.add_argument("--rounds", type=int, default=5)
    best = measure(parser.parse_args().rounds)
    for name, value in best.items():
        print(f"{name:<26}{value:6.2f} s")
    more = best["one epoch, 20 sequences"] - best["import torch"]
    print(f"one epoch minus import torch: {more:.2f} s (goal: at most 1.5)")
    more = best["check of a conformer"] - best["import torch"]
    print(f"check of a conformer minus import torch: {more:.2f} s (goal: at most 5)")
    print(f"rnn.py --help: {best['rnn.py --help']:.2f} s (goal: below 0.4)")


if __name__ == "__main__":
    main()
