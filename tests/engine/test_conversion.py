"""Parameters that a model file has in another form: the variants of LSTMs and of batch normalisation."""

import pytest
import torch

from returnn_lite.engine.checkpoints.conversion import convert
from returnn_lite.engine.checkpoints.lstm_layouts import CANONICAL, CELLS, swapped

D, H = 3, 2
generator = torch.Generator().manual_seed(1)
W, W_RE, B = (torch.randn(*shape, generator=generator) for shape in ((D, 4 * H), (H, 4 * H), (4 * H,)))
KERNEL = torch.cat([W, W_RE])
FORGET = torch.tensor([0.0, 0, 0, 0, 1, 1, 0, 0])  # 1 for the forget gate


def cell(name: str, kernel: str = "kernel", bias: str = "bias") -> dict:
    return {f"l/rec/{name}/{kernel}": swapped(KERNEL), f"l/rec/{name}/{bias}": swapped(B)}


def native(bias=B) -> dict:
    return {"l/rec/W": W, "l/rec/W_re": W_RE, "l/rec/b": bias}


def canonical() -> dict:
    """Gates i, f, j, o out of a, i, f, o, transposed; both biases."""
    order = (1, 2, 0, 3)
    gates = [[m.chunk(4, -1)[i] for i in order] for m in (W, W_RE, B, torch.zeros_like(B))]
    parts = [gate.T.flatten() if gate.ndim == 2 else gate for group in gates for gate in group]
    return {f"l/rec/{CANONICAL}{i}": part for i, part in enumerate(parts)}


LOW_MEMORY = {"l/rec/W": KERNEL, "l/rec/b": B}
STANDARD, BASIC = cell("lstm_cell"), cell("basic_lstm_cell")
FILES = {
    "native": native(),
    "low memory": LOW_MEMORY,
    "old names": cell("lstm_cell", "weights", "biases"),
    "canonical": canonical(),
    **{name: cell(name) for name in CELLS},
}
MODELS = {"native": native(), "low memory": LOW_MEMORY, "standard": STANDARD, "basic": BASIC}


def loaded(model: dict, file: dict) -> dict:
    """What the model gets from the file."""
    found = convert({name: tuple(value.shape) for name, value in model.items()}, file)
    return {**file, **found.values}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("file", FILES)
def test_lstm(file, model):
    """From every layout to every layout. What adds a forget bias at run time by its nature has it in the bias then."""
    want = MODELS[model]
    if CELLS.get(file) == 1.0 and model in ("native", "low memory"):
        want = {**want, "l/rec/b": B + FORGET}
    got = loaded(want, FILES[file])
    for name, value in want.items():
        assert torch.equal(got[name], value), name


def test_remarks_on_the_forget_bias():
    shapes = {name: tuple(value.shape) for name, value in STANDARD.items()}
    assert "adds its `forget_bias`" in convert(shapes, native()).remarks["l/rec"]
    assert not convert(shapes, FILES["rnn/lstm_cell"]).remarks
    shapes = {name: tuple(value.shape) for name, value in native().items()}
    assert "does not add a forget bias" in convert(shapes, STANDARD).remarks["l/rec"]
    assert not convert(shapes, FILES["lstm_fused_cell"]).remarks


def test_other_parameters_of_a_cell():
    file = {f"l/rec/rnn/lstm_cell/w_{gate}_diag": torch.ones(H) for gate in "fio"}
    got = loaded({f"l/rec/lstm_cell/w_{gate}_diag": torch.ones(H) for gate in "fio"}, file)
    assert torch.equal(got["l/rec/lstm_cell/w_f_diag"], torch.ones(H))


def test_nothing_is_converted_that_the_file_has():
    model = {**native(), "other/W": W}
    assert not convert({name: tuple(v.shape) for name, v in model.items()}, {**model, **STANDARD}).values


def test_wrong_sizes_stay_as_they_are():
    """So that the error that follows names the file's own shapes."""
    shapes = {"l/rec/W": (D + 1, 4 * H), "l/rec/W_re": (H, 4 * H), "l/rec/b": (4 * H,)}
    assert not convert(shapes, native()).values


def test_other_units_are_no_lstm():
    model = {"l/rec/gru_cell/gates/kernel": torch.zeros(D + H, 2 * H)}
    assert loaded(model, native()).keys() == native().keys()


WORDS = ("beta", "gamma", "mean", "variance")
NORMS = {
    0: {f"bn/batch_norm/bn_bn_output_{word}": torch.full((1, 1, 3), float(i)) for i, word in enumerate(WORDS)},
    1: {f"bn/batch_norm/{word}": torch.full((1, 1, 3), float(i)) for i, word in enumerate(WORDS)},
    2: {f"bn/batch_norm/v2_{word}": torch.full((3,), float(i)) for i, word in enumerate(WORDS)},
}


@pytest.mark.parametrize("model", NORMS)
@pytest.mark.parametrize("file", NORMS)
def test_batch_norm(file, model):
    got = loaded(NORMS[model], NORMS[file])
    for name, value in NORMS[model].items():
        assert torch.equal(got[name], value), name


def test_batch_norm_with_other_inner_names():
    file = {"bn/batch_norm/bn_something_else_mean": torch.zeros(1, 1, 3), "other/batch_norm/v2_mean": torch.ones(3)}
    assert torch.equal(loaded({"bn/batch_norm/v2_mean": torch.zeros(3)}, file)["bn/batch_norm/v2_mean"], torch.zeros(3))
    two = {**file, "bn/batch_norm/bn_more_mean": torch.zeros(1, 1, 3)}
    assert "bn/batch_norm/v2_mean" not in loaded({"bn/batch_norm/v2_mean": torch.zeros(3)}, two)


def test_accumulated_mean():
    mean = torch.ones(3)
    assert torch.equal(loaded({"m/mean_1": mean}, {"m/mean": mean})["m/mean_1"], mean)
    assert torch.equal(loaded({"m/mean": mean}, {"m/mean_1": mean})["m/mean"], mean)
