"""Writes the networks of recorded cases as Python files and holds their numbers against the recorded ones.

    python tests/conformance/to_torch_cases.py CASES/layers CASES/rec [-k TEXT] [-v]

A case is NAME.py (a config), NAME.json (which layers, in which modes) and NAME.npz (parameters, a batch, outputs). The
written files run in a process that cannot import the package. Prints what does not agree, and why what is refused is.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from returnn_lite.config import Config  # noqa: E402
from returnn_lite.errors import ConfigError  # noqa: E402
from returnn_lite.network import Network  # noqa: E402
from returnn_lite.to_torch.checks import check  # noqa: E402
from returnn_lite.to_torch.scope import Unwritable  # noqa: E402
from returnn_lite.to_torch.task import write  # noqa: E402
from tests.conformance.network_kind import _set_params, config_imports, eval_names  # noqa: E402
from tests.to_torch.alone import run_alone  # noqa: E402

Arrays = dict[str, np.ndarray]


class Case:
    """A recorded case."""

    def __init__(self, path: Path) -> None:
        self.meta = json.loads(path.with_suffix(".json").read_text())
        self.name = path.stem
        self.arrays = np.load(path.with_suffix(".npz"))
        with config_imports():
            names = runpy.run_path(str(path.with_suffix(".py")))
        self.config = {key: x for key, x in names.items() if not key.startswith("__") and key != "case"}

    def group(self, prefix: str) -> Arrays:
        """The arrays whose names begin so, by the rest of the name."""
        return {name[len(prefix) :]: self.arrays[name] for name in self.arrays.files if name.startswith(prefix)}

    @property
    def jobs(self) -> list[tuple[str, str]]:
        """Mode and layer of all recorded outputs but those of the training."""
        return [(mode, layer) for mode in self.meta["modes"] if mode != "train" for layer in self.group(f"{mode}/out/")]

    def network(self, mode: str, layer: str) -> Network:
        """The network with the recorded parameters."""
        net = Network(
            Config(dict(self.config)),
            self.config["network"],
            search=mode == "search",
            eval=False,
            eval_names=eval_names,
            extra_layers=(layer,),
        )
        params = self.group("param/")
        _set_params(net, {name: params[name] for name in net.params})
        return net.eval()

    def inputs(self, net: Network) -> dict[str, torch.Tensor]:
        """The recorded batch."""
        keys = net.used_data_keys or {min(net.extern_data.specs, key="data".__ne__)}
        data = {key: torch.from_numpy(x) for key, x in self.group("in/").items() if key in keys}
        lengths = {f"{key}_lengths": torch.from_numpy(x) for key, x in self.group("in_len/").items() if key in keys}
        return {**data, **lengths}

    def differs(self, mode: str, layer: str, found: dict[str, torch.Tensor]) -> str:
        """What differs from the recorded output, "" for nothing; padding is not compared."""
        want, got = self.arrays[f"{mode}/out/{layer}"], found["output"].detach().numpy()
        if got.shape != want.shape:
            return f"shape {got.shape}, want {want.shape}"
        valid = np.ones(want.shape, bool)
        for axis, ends in self.group(f"{mode}/len/{layer}/").items():
            if axis.isdigit() and ends.ndim == 1 and len(ends) == want.shape[0] and axis != "0":
                at = int(axis)
                within = np.arange(want.shape[at]) < ends[:, None]
                valid &= within.reshape([len(ends), *(within.shape[1] if i == at else 1 for i in range(1, want.ndim))])
        tolerance = {"rtol": self.meta["rtol"], "atol": self.meta["atol"], "equal_nan": True}
        close = np.isclose(got, want, **tolerance) if want.dtype.kind == "f" else got == want
        return "" if np.all(close | ~valid) else f"{int(np.sum(~close & valid))} of {want.size} numbers differ"


def convert(case: Case, mode: str, layer: str, file: Path) -> dict[str, torch.Tensor]:
    """Writes the file; gives the recorded batch."""
    net = case.network(mode, layer)
    module = write(net, layer, f"{case.name}, {layer}.", file.with_suffix(".pt").name)
    check(net, layer, module)
    file.write_text(module.text)
    torch.save(module.weights, file.with_suffix(".pt"))
    return case.inputs(net)


def main() -> int:
    """Runs all cases; exit code 1 if a written file gives other numbers, or something is refused without a reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("-k", default="", help="cases whose names contain this")
    parser.add_argument("-v", action="store_true", help="name everything, with its seconds")
    parser.add_argument("--every", type=int, default=1, help="every so many cases")
    parser.add_argument("--out", type=Path, help="keep the files here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(p for folder in args.folders for p in folder.glob("*.py") if args.k in p.name)[:: args.every]
    with tempfile.TemporaryDirectory() as temporary:
        results = run_cases(paths, args.out or Path(temporary), args.v)
    for name, kind, text in results:
        if kind != "agrees":
            print(f"{kind} {name}: {text}")
    counts = Counter(kind for _, kind, _ in results)
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())), f"of {len(results)} outputs")
    return int(counts["FAILS"] + counts["DIFFERS"] > 0)


def run_cases(paths: list[Path], out: Path, verbose: bool) -> list[tuple[str, str, str]]:
    """Name, kind ("agrees", "refused", "DIFFERS", "FAILS") and text of each output."""
    out.mkdir(parents=True, exist_ok=True)
    results, waiting = [], {}
    for path in paths:
        case = Case(path)
        for mode, layer in case.jobs:
            name, start = f"{case.name} {mode} {layer}", time.time()
            file = out / f"{case.name}__{mode}__{layer.replace('/', '_')}.py"
            try:
                waiting[file] = convert(case, mode, layer, file), (case, mode, layer, name)
            except Unwritable as exc:
                results.append((name, "refused", str(exc.as_error())))
            except ConfigError as exc:
                results.append((name, "refused", str(exc)))
            except Exception as exc:  # noqa: BLE001 - the table says what is wrong
                results.append((name, "FAILS", f"{type(exc).__name__}: {exc}"[:300]))
            if verbose:
                print(f"{time.time() - start:6.1f} s  {name}", flush=True)
    given = {file: (1, inputs) for file, (inputs, _) in waiting.items()}
    for found, (_, (case, mode, layer, name)) in zip(answers(given), waiting.values(), strict=True):
        text = found if isinstance(found, str) else case.differs(mode, layer, found)
        results.append((name, "FAILS" if text is found else "DIFFERS" if text else "agrees", text))
    return results


def answers(given: dict[Path, tuple[int, dict[str, torch.Tensor]]]) -> list[dict[str, torch.Tensor] | str]:
    """What the files give, or the errors of those that fail."""
    try:
        return run_alone(given)
    except RuntimeError as exc:
        return [str(exc)] if len(given) == 1 else [x for item in given.items() for x in answers(dict([item]))]


if __name__ == "__main__":
    sys.exit(main())
