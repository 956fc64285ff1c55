"""Networks as exported programs and ONNX models: their numbers for batches of all sizes, without the package."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import returnn_lite.catalog  # noqa: F401 - fills the registries
from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.export.net_part import net_part
from returnn_lite.export.onnx_file import Session, onnx_model
from returnn_lite.export.part import Part
from returnn_lite.export.program import Runner, file_of
from returnn_lite.export.task import export_task
from returnn_lite.library import load
from returnn_lite.log import Log
from returnn_lite.network.network import Network
from returnn_lite.tasks import eval_names
from tests.to_torch.test_to_torch import ATTENTION, EXTERN, NETS, lstm, network

EXPORTED = ("one layer", "bidirectional", "pooled", "convolved", "self-attention", "eval")
TASK = {
    "extern_data": EXTERN,
    "network": NETS["bidirectional"][0],
    "allow_random_model_init": True,
    "task": "export",
}


def part_of(name: str) -> Part:
    """What is exported of one of the nets."""
    net, layer = network(name)
    with torch.no_grad():
        return net_part(net, layer, None)


def net_of(description: dict) -> Network:
    """A network that is no entry of the table."""
    return Network(Config({"extern_data": EXTERN}), description, eval=False, eval_names=eval_names).eval()


@pytest.mark.parametrize("name", EXPORTED)
def test_numbers(name: str):
    part = part_of(name)
    file = file_of(part.program(), part.inputs, part.outputs)
    found = part.check(Runner(file), "pt2")
    assert found.gap < 1e-5
    assert found.min_frames == {"convolved": 4}.get(name, 1)


@pytest.mark.parametrize("name", EXPORTED)
def test_onnx_numbers(name: str):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    part = part_of(name)
    found = part.check(Session(onnx_model(part.program(), part.inputs, part.outputs)), "onnx")
    assert found.gap < 1e-5
    assert found.min_frames == {"convolved": 4}.get(name, 1)


def test_padding_does_not_matter():
    part = part_of("bidirectional")
    run = Runner(file_of(part.program(), part.inputs, part.outputs))
    example = part.examples[1].inputs
    data, lengths = example["data"].clone(), example["data_lengths"]
    for row, length in zip(data, lengths.tolist(), strict=True):
        row[length:] = 1e3
    before, after = run(example)["output"], run({"data": data, "data_lengths": lengths})["output"]
    for x, y, length in zip(before, after, lengths.tolist(), strict=True):
        torch.testing.assert_close(x[:length], y[:length])


def test_unused_data_is_left_out():
    part = part_of("bidirectional")
    assert [port.name for port in part.inputs] == ["data", "data_lengths"]
    assert part.inputs[0].axes == ("batch", "data_time", 5) == part.outputs[0].axes[:2] + (5,)


def config_of(description: dict, folder: Path, **options) -> Config:
    """A config that exports to a folder."""
    return Config(
        {
            "extern_data": EXTERN, "network": description, "allow_random_model_init": True, "task": "export",
            "export_file": str(folder / "net"), "export_formats": "pt2", **options,
        }
    )  # fmt: skip


CTC = {
    "f": lstm("data"),
    "b": lstm("data", -1),
    "output": {"class": "softmax", "from": ["f", "b"], "loss": "ctc", "target": "classes"},
}


def test_example(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    options = {"extern_data": EXTERN, "network": CTC, "allow_random_model_init": True}
    export_task(config_of(CTC, tmp_path, export_formats="onnx"), Log.silent())
    sequences = [torch.randn(n, 5, generator=torch.Generator().manual_seed(n)).numpy() * 9 for n in (31, 12)]
    for i, x in enumerate(sequences):
        np.save(tmp_path / f"{i}.npy", x)
    example = Path(__file__).resolve().parents[2] / "demos/export/ctc.py"
    program = (
        f"import sys, runpy; sys.modules['returnn_lite'] = None; runpy.run_path({str(example)!r}, run_name='__main__')"
    )
    call = [sys.executable, "-c", program, "net", "0.npy", "1.npy"]
    said = subprocess.run(call, cwd=tmp_path, check=True, timeout=600, capture_output=True, text=True).stdout
    model = load(options)
    wanted = [" ".join(str(label) for label in model.search(x)[0].labels) for x in sequences]
    assert said.splitlines() == wanted and all(wanted)


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    description = {"output": {"class": "softmax", "from": "data", "loss": "ctc", "target": "classes"}}
    labels = {"labels": list("abcdefg"), "unknown_label": None}
    extern = {**EXTERN, "classes": {**EXTERN["classes"], "vocab": labels}}
    data = [{"data": torch.randn(n, 5).numpy(), "classes": torch.tensor([1, 2]).int().numpy()} for n in (4, 9)]
    dev = {"class": "StaticDataset", "data": data, "output_dim": {"data": (5, 2), "classes": (7, 1)}}
    config = config_of(description, tmp_path, extern_data=extern, dev=dev, batch_size=100, log_verbosity=1)
    export_task(config, Log.from_config(config))
    (line,) = capsys.readouterr().out.splitlines()
    assert f"written: {tmp_path}/net.pt2, {tmp_path}/net.json; checked on dev, largest difference" in line
    about = json.loads((tmp_path / "net.json").read_text())
    assert (about["layer"], about["blank"], about["labels"]) == ("output", 7, list("abcdefg"))
    (program,) = about["programs"]
    assert program["inputs"][1] == {
        "name": "data_lengths",
        "dtype": "int32",
        "axes": ["batch"],
        "role": "lengths",
    }
    assert program["outputs"][0]["axes"] == ["batch", "data_time", 8] and program["min_frames"] == 1


def test_without_the_package(tmp_path: Path):
    part = part_of("bidirectional")
    (tmp_path / "net.pt2").write_bytes(file_of(part.program(), part.inputs, part.outputs))
    example = part.examples[2]
    torch.save(example.inputs, tmp_path / "in.pt")
    program = """
import sys
sys.modules["returnn_lite"] = None
import torch
net = torch.export.load("net.pt2").module()
torch.save({k: v.detach() for k, v in net(**torch.load("in.pt")).items()}, "out.pt")
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=600)
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), example.wanted)


DECISION = {"output": {"class": "eval", "from": "data", "eval": "source(0) * (1.0 if source(0).sum() > 0 else 0.5)"}}


@pytest.mark.parametrize(
    ("description", "options", "message"),
    [
        (NETS["own loop"][0], {}, r'network\["output"\].*: cannot be exported: its loop turns as often'),
        (ATTENTION, {}, "forward_output_layer: layer 'output' is the search of a decoder; `export_loop = .output"),
        (DECISION, {}, "cannot be written as a torch module: no size tells a number"),
        (NETS["random"][0], {}, "cannot be exported: it draws random numbers"),
        (NETS["one layer"][0], {"export_formats": "onyx"}, 'export_formats: must be of .* did you mean "onnx"'),
        (NETS["one layer"][0], {"export_formats": []}, "export_formats: must name one"),
        (NETS["one layer"][0], {"forward_output_layer": "outptu"}, 'did you mean "output"'),
    ],
)
def test_refused(description: dict, options: dict, message: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=message) as caught:
        export_task(config_of(description, tmp_path, **options), Log.silent())
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    config = config_of(NETS["one layer"][0], tmp_path, export_formats=["onnx"])
    with pytest.raises(ConfigError, match=r'export_formats: .* pip install "returnn-lite\[export\]"'):
        export_task(config, Log.silent())
