"""The check of a written module: which batches it takes, and what it says of modules that are wrong."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.network.network import Network
from returnn_lite.to_torch.batches import BATCHES, Kind, batch, results
from returnn_lite.to_torch.checks import check, loaded_module
from returnn_lite.to_torch.module import Module
from returnn_lite.to_torch.scope import Unwritable
from returnn_lite.to_torch.task import write
from returnn_lite.to_torch.text import wrapped
from tests.engine.helpers import run
from tests.to_torch.alone import run_alone
from tests.to_torch.test_to_torch import EXTERN, linear, network, written


def changed(module: Module, before: str, after: str) -> Module:
    """The module with another text in one place."""
    assert module.text.count(before) == 1
    return replace(module, text=module.text.replace(before, after))


@pytest.fixture(scope="module")
def search() -> tuple[Network, str, Module]:
    """A search, the layer, its module."""
    net, layer = network("search")
    return net, layer, written(net, layer)


def test_recorded_batches_tell_sizes_apart():
    net = Network(Config({"extern_data": EXTERN}), {"output": linear(["data", "data:gates"])}, eval=False)
    rows = [batch(net, *size, Kind(padded=True)) for size in BATCHES]
    longest = [{key: int(x.max()) for key, x in lengths.items()} for _, lengths in rows]
    sizes = [{key: x.shape[1] for key, x in data.items()} for data, _ in rows]
    assert {"data", "gates"} == set(longest[0])
    assert {a == b for a, b in zip(longest, sizes, strict=True)} == {True, False}
    assert len({2 * n["gates"] > n["data"] for n in longest}) == 2
    assert len({int(lengths["data"].argmax()) for _, lengths in rows}) > 2


def test_more_padding_than_needed(search):
    net, layer, module = search
    made = loaded_module(module)
    net.context.keeps_batch = net.context.full_beam = False
    data, lengths = batch(net, 3, 21)
    lengths = {key: x - 4 for key, x in lengths.items()}
    with torch.no_grad():
        wanted = results(net, layer, data, lengths)
        found = made(**data, **{f"{key}_lengths": x for key, x in lengths.items()})
    torch.testing.assert_close(found, wanted)


def test_hypotheses_without_labels(search):
    net, layer, module = search
    made = loaded_module(module)
    data, lengths = batch(net, 3, 21)
    bias = net.params["output/rec/prob/b"].detach().clone()
    with torch.no_grad():
        net.params["output/rec/prob/b"][0] = made.output_rec_prob_b[0] = 50.0
        wanted = results(net, layer, data, lengths)
        found = made(**data, **{f"{key}_lengths": x for key, x in lengths.items()})
        net.params["output/rec/prob/b"].copy_(bias)
    assert int(wanted["lengths"].min()) == 0
    torch.testing.assert_close(found, wanted)


def test_searches_end_at_several_ticks(search):
    assert check(*search).ended_early


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("keys = F.linear(", "keys = 2 * F.linear(", r'^network\["keys"\]: .*differs from the network'),
        ("keys = F.linear(", "keys = F.linear(None, ", r"^network\['keys'\]: .*the module fails"),
        ("if output_over.all():", "if output_over.any():", r'^network\["output"\]: '),
    ],
)
def test_says_which_layer_is_wrong(before: str, after: str, message: str, search):
    net, layer, module = search
    with pytest.raises(ConfigError, match=message):
        check(net, layer, changed(module, before, after))


def test_a_module_that_changes_itself_is_refused():
    net, layer = network("one layer")
    module = changed(
        written(net, layer),
        "        # output",
        "        self.output_b.mul_(1.0).add_(0.0, alpha=1).add_(1e-9)\n        # output",
    )
    with pytest.raises(ConfigError, match="it changes 'output_b' when it is evaluated"):
        check(net, layer, module)


def test_refusals_name_the_layer():
    shifted = {"class": "eval", "from": "x", "eval": "source(0) + source(0).new_tensor(float(source(0).size(1) % 5))"}
    net = Network(
        Config({"extern_data": EXTERN}), {"x": linear("data"), "y": shifted, "output": linear("y")}, eval=False
    ).eval()
    with pytest.raises(Unwritable) as found:
        write(net, "output")
    assert str(found.value.as_error()).startswith('network["y"]: ')


def test_refusals_without_a_layer_name_the_output(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> Module:
        raise Unwritable("it reads what the file does not compute")

    monkeypatch.setattr("returnn_lite.to_torch.task.make_module", refuse)
    with pytest.raises(Unwritable) as found:
        written(*network("one layer"))
    assert str(found.value.as_error()).startswith("network['output']: ")


def test_checks_on_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    dev = {"class": "DummyDataset", "input_dim": 5, "output_dim": 7, "num_seqs": 6}
    net = {"output": {"class": "softmax", "n_out": 7, "from": "data"}}
    config = {"task": "to_torch", "network": net, "extern_data": EXTERN, "allow_random_model_init": True}
    assert "checked on dev and random numbers, " in run({**config, "dev": dev, "max_seq_length": 4})[-1]
    missing = {"class": "HDFDataset", "files": ["none.hdf"]}
    assert "checked on random numbers (" in run({**config, "dev": missing})[-1]


def test_files_that_fail_say_why(tmp_path: Path):
    (tmp_path / "net.py").write_text("def load(file):\n    raise ValueError('no such thing')\n")
    with pytest.raises(RuntimeError, match="^ValueError: no such thing$"):
        run_alone({tmp_path / "net.py": (1, {})})


def test_long_lines_keep_their_texts_whole():
    line = f"x = torch.einsum('...t,...d->...td', {', '.join(f'argument_{i}' for i in range(12))})"
    assert "    '...t,...d->...td',\n    argument_0,\n" in wrapped(line)


def test_long_lines_break_at_the_last_brackets():
    line = f"x = first(1, 2).second({', '.join(f'argument_{i}' for i in range(12))})"
    assert wrapped(line).startswith("x = first(1, 2).second(\n    argument_0,\n    argument_1,\n")


def test_long_targets_stand_in_brackets():
    targets = ", ".join(f"target_{i}" for i in range(12))
    text = wrapped(f"    {targets} = function(argument)")
    assert text.startswith("    (\n        target_0,\n") and text.endswith(
        "    ) = function(\n        argument,\n    )"
    )


@pytest.mark.parametrize("end", ["[: argument_1]", " * (argument_0 + argument_1)"])
def test_long_lines_stay_what_they_are(end: str):
    line = f"x = first({', '.join(f'argument_{i}' for i in range(12))}){end}"
    assert wrapped(line) == line
