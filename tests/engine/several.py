"""Several processes that train together, without torchrun's own: each runs a list of configs, one after the other.

As a script: `several.py FOLDER…` runs `a.config` of each folder, and prints the exit codes.
"""

import os
import random
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 900  # seconds, on a busy machine


def free_port() -> int:
    """A port that nothing listens at now; none of those that connections take at their own ends (from 32768 on)."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as found, suppress(OSError):
            found.bind(("", port))
            return port


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun sets for a process on a single machine."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in places.items()}}


def start(count: int, folders: list[Path], **changes: dict[str, str]) -> list[subprocess.Popen]:
    """Starts the processes of these folders; `changes`: of the environment, by rank ("rank1")."""
    ports = [free_port() for _ in folders]  # a training leaves its port in use for a while
    started = []
    for rank in range(count):
        own = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment(rank, count, ports[0])}
        own["PORTS"] = " ".join(map(str, ports))
        own |= changes.get(f"rank{rank}", {})
        words = [sys.executable, "-m", "tests.engine.several", *map(str, folders)]
        started.append(
            subprocess.Popen(words, cwd=ROOT, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    return started


def finish(started: list[subprocess.Popen]) -> list[tuple[str, str]]:
    """Waits for their ends; (stdout, stderr) by rank."""
    try:
        return [process.communicate(timeout=TIMEOUT) for process in started]
    finally:
        for process in started:
            process.kill()


def train(count: int, configs: dict[Path, str]) -> None:
    """Trains the texts, which are added to that of `helpers.CONFIG_FILE`, in their folders. All must go well."""
    from tests.engine.helpers import CONFIG_FILE

    for folder, text in configs.items():
        folder.mkdir(exist_ok=True)
        (folder / "a.config").write_text(CONFIG_FILE + text)
    started = start(count, list(configs))
    for out, err in finish(started):
        codes = [line for line in out.splitlines() if line.startswith("exit codes")]
        assert codes == [f"exit codes {[0] * len(configs)}"], f"{err[-3000:]}\n{out[-1000:]}"


def main(folders: list[str]) -> None:
    """Runs all configs in this process."""
    from returnn_lite.cli import main as run_command_line

    codes = []
    for folder, port in zip(folders, os.environ["PORTS"].split(), strict=True):
        if os.environ.get("MASTER_PORT"):
            os.environ["MASTER_PORT"] = port
        os.chdir(folder)
        codes.append(run_command_line(["a.config"]))
        if codes[-1]:
            break
    print("exit codes", codes, flush=True)
    if any(codes):
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
