"""Written modules, run in a process that cannot import the package."""

import subprocess
import sys
from pathlib import Path

import torch

PROGRAM = """
import sys
sys.modules.update(returnn_lite=None, returnn=None)
import importlib.util, torch

for path in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("net", path + ".py")
    net = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(net)
    seed, inputs = torch.load(path + ".in.pt")
    torch.manual_seed(seed)
    with torch.no_grad():
        made = net.load(path + ".pt")
        taken = made.forward.__code__.co_varnames[: made.forward.__code__.co_argcount]
        torch.save(made(**{name: x for name, x in inputs.items() if name in taken}), path + ".out.pt")
"""


def run_alone(inputs: dict[Path, tuple[int, dict[str, torch.Tensor]]]) -> list[dict[str, torch.Tensor]]:
    """What the modules give; `inputs` by file: the seed of random numbers, and tensors by name, of which they
    take what they need. RuntimeError with the last line of what went wrong."""
    paths = [str(path.with_suffix("")) for path in inputs]
    for path, given in zip(paths, inputs.values(), strict=True):
        torch.save(given, f"{path}.in.pt")
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, *paths], stderr=subprocess.PIPE, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return [torch.load(f"{path}.out.pt") for path in paths]
