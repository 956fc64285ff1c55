"""Models in torch and `returnn.frontend` as exported programs: what their `forward_step` marks."""

from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import returnn_lite.catalog  # noqa: F401 - fills the registries
from returnn_lite import frontend as rf
from returnn_lite.errors import ConfigError
from returnn_lite.export.net_part import net_part
from returnn_lite.export.onnx_file import Session, onnx_model
from returnn_lite.export.packed import Packed
from returnn_lite.export.part import Part
from returnn_lite.export.portable import LSTM
from returnn_lite.export.program import Runner, file_of
from returnn_lite.export.task import export_task
from returnn_lite.frontend import Dim
from returnn_lite.library import Model, read_config
from returnn_lite.log import Log
from tests.to_torch.test_to_torch import EXTERN


class Reader(torch.nn.Module):
    """Two layers of a packed LSTM over pooled frames."""

    def __init__(self) -> None:
        super().__init__()
        self.shrink = torch.nn.MaxPool1d(2, ceil_mode=True)
        self.lstm = torch.nn.LSTM(5, 6, num_layers=2, batch_first=True, bidirectional=True)
        self.output = torch.nn.Linear(12, 7)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log probabilities of shorter sequences."""
        x, lengths = self.shrink(x.transpose(1, 2)).transpose(1, 2), (lengths + 1) // 2
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        return self.output(out).log_softmax(-1), lengths


def read(*, model, extern_data, **_):
    """The `forward_step` of the reader."""
    data = extern_data["data"]
    log_probs, lengths = model(data.raw_tensor, data.dims[1].dyn_size_ext.raw_tensor)
    dims = [data.dims[0], Dim(lengths, name="frames"), Dim(7, name="classes")]
    rf.get_run_ctx().mark_as_output(log_probs, "output", dims=dims)


class Attending(rf.Module):
    """A layer of self-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.in_dim, self.out_dim = Dim(5, name="in"), Dim(8, name="out")
        self.input = rf.Linear(self.in_dim, self.out_dim)
        self.norm = rf.LayerNorm(self.out_dim)
        self.attention = rf.SelfAttention(
            self.out_dim, self.out_dim, key_dim_total=self.out_dim, value_dim_total=self.out_dim, num_heads=2
        )


def attend(*, model, extern_data, **_):
    """The `forward_step` of the self-attention."""
    data = extern_data["data"]
    data.feature_dim.declare_same_as(model.in_dim)
    x = model.input(data)
    x = x + model.attention(model.norm(x), axis=data.dims[1])
    rf.get_run_ctx().mark_as_output(x, "output", dims=[rf.batch_dim, data.dims[1], model.out_dim])


MODELS = {"torch, packed LSTM": (Reader, read), "rf, self-attention": (Attending, attend)}


def options_of(name: str) -> dict:
    """The options of a config."""
    make, step = MODELS[name]
    return {
        "extern_data": EXTERN, "backend": "torch", "behavior_version": 21, "get_model": lambda **_: make(),
        "forward_step": step, "allow_random_model_init": True, "device": "cpu",
    }  # fmt: skip


def part_of(name: str) -> Part:
    """What is exported of one of the models."""
    with torch.no_grad():
        return net_part(Model(read_config(options_of(name))).net, "output", None)


@pytest.mark.parametrize("name", MODELS)
def test_numbers(name: str):
    part = part_of(name)
    assert [port.name for port in part.inputs] == ["data", "data_lengths"]
    assert part.check(Runner(file_of(part.program(), part.inputs, part.outputs)), "pt2").gap < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_onnx_numbers(name: str):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    part = part_of(name)
    assert part.check(Session(onnx_model(part.program(), part.inputs, part.outputs)), "onnx").gap < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_padding_does_not_matter(name: str):
    part = part_of(name)
    run = Runner(file_of(part.program(), part.inputs, part.outputs))
    data, lengths = torch.randn(2, 14, 5), torch.tensor([8, 6], dtype=torch.int32)  # pooled by 2
    short = run({"data": data[:, :8], "data_lengths": lengths})
    long = run({"data": data, "data_lengths": lengths})
    for x, y, end in zip(short["output"], long["output"], short["lengths"].tolist(), strict=True):
        torch.testing.assert_close(x[:end], y[:end])


def test_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = {**options_of("torch, packed LSTM"), "export_file": str(tmp_path / "net"), "export_formats": "pt2"}
    config = read_config(options, log_verbosity=1)
    export_task(config, Log.from_config(config))
    assert "written:" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="export_loop: only networks of layers have decoders"):
        export_task(read_config(options, export_loop="output"), Log.silent())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.json", "net.pt2"]


@pytest.mark.parametrize("bias", [True, False])
def test_packed(bias: bool):
    lstm = torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True, bias=bias)
    x, lengths = torch.randn(7, 3, 3), torch.tensor([7, 4, 1])
    out, (h, c) = lstm(pack_padded_sequence(x, lengths))
    packed = Packed(LSTM)
    state = x.new_zeros(4, 3, 4), x.new_zeros(4, 3, 4)
    data, sizes = packed.pack(x, lengths, False)
    assert sizes.tolist() == out.batch_sizes.tolist()
    found, *ends = packed.lstm(data, sizes, state, lstm._flat_weights, bias, 2, 0.0, False, True)
    torch.testing.assert_close(packed.pad(found, sizes, False, 0.0)[0], pad_packed_sequence(out)[0])
    torch.testing.assert_close(ends, [h, c])
