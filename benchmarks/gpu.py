"""Training on a GPU: equal numbers first, then our steps, eager and recorded, against hand-written eager torch.

    python benchmarks/gpu.py [--only blstm] [--seconds 230] [--cases ../shared/conformance] [--json FILE]

Checks golden network cases (where they are) and own small nets on the GPU; says what a step of each net waits for.
Then, for each net: milliseconds a step of ours and of the hand-written loop, in turn on the same batches, with TF32 and
with bfloat16; launches, the part of the time that the GPU works, the memory of a step. Stops after `--seconds`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import train_attention
import train_blstm
import train_conformer
import train_transformer
from common import Batch, Ours, make_batches, unseen_torch_step

from returnn_lite.config import Config
from returnn_lite.engine.graphs.repeated import repeated_steps
from returnn_lite.log import Log

GPU = torch.device("cuda")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BATCHES, ROUNDS, WARM = 4, 3, 3
Step = Callable[[Batch], torch.Tensor]
BIG = {"SIZE": 512, "HEADS": 8, "HEAD": 64, "INNER": 2048}
NETS: dict[str, tuple[ModuleType, dict[str, int], int, tuple]] = {  # name -> module, sizes, frames, arguments
    "transformer 512": (train_transformer, BIG, 20000, (2100,)),
    "attention": (train_attention, {}, 5000, (140,)),
    "blstm 256": (train_blstm, {"UNITS": 256}, 5000, (70,)),
    "transformer 256": (train_transformer, {"SIZE": 256, "HEADS": 4, "HEAD": 64, "INNER": 1024}, 5000, (520,)),
    "conformer 512": (train_conformer, {}, 20000, (260, 100, 500)),
    "blstm 512": (train_blstm, {"UNITS": 512}, 20000, (280,)),
    "attention 20k": (train_attention, {}, 20000, (560,)),
}


def pinned(batch: Batch) -> Batch:
    """The batch as the loader hands it on for a GPU."""
    data = {key: torch.from_numpy(values).pin_memory() for key, values in batch.data.items()}
    return Batch(data, batch.lengths, batch.tags, batch.complete)  # type: ignore[arg-type]


@contextmanager
def tf32(on: bool = True) -> Iterator[None]:
    """Products of matrices in TF32, or in whole float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    yield
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def in_bfloat16(step: Step) -> Step:
    """The step with autocast."""

    def cast(batch: Batch) -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return step(batch)

    return cast


def seconds_of(step: Step, batches: Sequence[Batch]) -> float:
    """Seconds of a step, on average over a pass for whose results nobody waits before its end."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for batch in batches:
        step(batch)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(batches)


def timed(steps: dict[str, Step], batches: Sequence[Batch]) -> dict[str, float]:
    """Median milliseconds of a step of each, in turn."""
    for _ in range(WARM):
        for step in steps.values():
            seconds_of(step, batches)
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            found[name].append(seconds_of(step, batches))
    return {name: 1000 * statistics.median(values) for name, values in found.items()}


def memory_of(step: Step, batch: Batch) -> float:
    """GB that a step takes besides what was there before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(batch)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def work_of(step: Step, batch: Batch) -> tuple[int, float]:
    """Launches of a step, and the milliseconds that the GPU works on them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step(batch)
        torch.cuda.synchronize()
    kernels = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return len(kernels), sum(e.self_device_time_total for e in kernels) / 1000


def waits_of(step: Step, batch: Batch) -> list[str]:
    """The places at which a step waits for the GPU."""
    found: list[str] = []

    def note(message: object, *args: object, **kwargs: object) -> None:
        frames = [f for f in traceback.extract_stack() if "returnn_lite/" in f.filename]
        found.append(f"{frames[-1].filename.split('returnn_lite/')[-1]}:{frames[-1].lineno}" if frames else "hand")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found


def our_steps(module: ModuleType, log: Log, **more: Any) -> dict[str, Any]:
    """Our steps, eager and recorded, and the weights that they begin with."""
    config = {**module.config(), **more}
    eager, recorded = Ours(config, GPU), Ours(config, GPU, repeated_steps(Config({"torch_cuda_graph": True}), log, GPU))
    return {"eager": eager.step_unseen, "recorded": recorded.step_unseen, "weights": eager.weights()}


def measure(name: str) -> dict[str, Any]:
    """All numbers of one net."""
    module, sizes, frames, arguments = NETS[name]
    for key, value in sizes.items():
        setattr(module, key, value)
    batches = [pinned(b) for b in make_batches(module.sequences(*arguments), frames)[:BATCHES]]
    logged: list[str] = []
    log = Log.silent()
    log.v3 = log.v4 = logged.append  # type: ignore[method-assign, assignment]
    steps = our_steps(module, log)
    by_hand = module.HandWritten(steps.pop("weights")).to(GPU)
    steps["hand"] = unseen_torch_step(by_hand, by_hand.loss, module.RATE)
    row: dict[str, Any] = {"net": name, "frames": frames}
    first = {key: float(step(batches[0]).flatten()[-1]) for key, step in steps.items()}
    row["first losses"] = first
    row["waits"] = waits_of(steps["eager"], batches[0])
    row["tf32"] = timed(steps, batches)
    row["GB"] = {key: round(memory_of(steps[key], batches[0]), 3) for key in ("eager", "hand")}
    for key in ("eager", "hand"):
        launches, busy = work_of(steps[key], batches[0])
        row[f"{key} work"] = {"launches": launches, "busy ms": round(busy, 2)}
    row["log"] = [line for line in logged if "recorded a step" not in line] or f"{len(logged)} recorded"
    try:
        lowered = our_steps(module, log, torch_amp="bfloat16")
        del lowered["weights"]
        row["bf16"] = timed({**lowered, "hand": in_bfloat16(steps["hand"])}, batches)
    except Exception as exc:  # the other numbers count
        row["bf16"] = f"{type(exc).__name__}: {exc}"[:300]
    return row


def show(row: dict[str, Any]) -> None:
    """A row of the table, and what there is to say of it."""
    print(f"== {row['net']}, {row['frames']} frames; first losses {row['first losses']}")
    for kind in ("tf32", "bf16"):
        times = row[kind]
        if isinstance(times, str):
            print(f"   {kind}: {times}")
            continue
        hand = times["hand"]
        ratios = ", ".join(f"{key} {value:.1f} ms ({value / hand:.2f})" for key, value in times.items())
        print(f"   {kind}: {ratios}")
    print(f"   launches, busy: ours {row['eager work']}, hand {row['hand work']}; GB {row['GB']}")
    waits = {place: row["waits"].count(place) for place in dict.fromkeys(row["waits"])}
    print(f"   waits: {waits or 'none'}; log: {row['log']}", flush=True)


def golden(cases: Path) -> "subprocess.Popen[str] | None":
    """Starts the golden network cases on the GPU."""
    if not (cases / "run.py").exists():
        print(f"golden cases: none at {cases}")
        return None
    command = [sys.executable, str(cases / "run.py"), "network"]
    environment = {**os.environ, "CONFORMANCE_DEVICE": "cuda", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def show_golden(running: "subprocess.Popen[str]", seconds: float) -> None:
    """Waits for the golden cases, and prints those that have failed."""
    try:
        text, _ = running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        running.kill()
        text = running.communicate()[0] + "\ntime is up"
    lines = text.splitlines()
    failed = [line for line in lines if "FAIL" in line or "fail" in line or "mismatch" in line]
    print("\n".join(["golden cases on the GPU:", *failed[:40], *lines[-3:]]), flush=True)


def run_apart(*command: str, seconds: float) -> None:
    """Runs a script in a process of its own: an error of CUDA ends all work of its process."""
    try:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, timeout=seconds)
        print(f"   exit code {done.returncode}" if done.returncode else "", end="\n", flush=True)
    except subprocess.TimeoutExpired:
        print(f"   not ready after {seconds:.0f} s", flush=True)


def main() -> None:
    """Checks, measures, prints."""
    parser = argparse.ArgumentParser(description="Training speed on a GPU.")
    parser.add_argument("--only", default="", help="only nets whose name contains this")
    parser.add_argument("--one", help="measure this net here and now")
    parser.add_argument("--seconds", type=float, default=230, help="when to stop, default %(default)s")
    parser.add_argument("--cases", type=Path, default=ROOT / "shared" / "conformance", help="golden cases")
    parser.add_argument("--json", type=Path, help="file for all numbers, a line a net")
    args = parser.parse_args()
    torch.manual_seed(1)
    if args.one:
        with tf32():
            row = measure(args.one)
        show(row)
        if args.json:
            with args.json.open("a") as file:
                file.write(json.dumps(row) + "\n")
        return
    end = time.monotonic() + args.seconds
    print(torch.__version__, torch.cuda.get_device_name(), flush=True)
    cases = golden(args.cases)
    run_apart(str(HERE / "gpu_checks.py"), seconds=60)
    if cases is not None:
        show_golden(cases, 40)
    for name in NETS:
        start = time.monotonic()
        if args.only in name and start < end:
            more = ["--json", str(args.json.resolve())] if args.json else []
            run_apart(str(HERE / "gpu.py"), "--one", name, *more, seconds=min(75, end - start + 20))
            print(f"   {name}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
