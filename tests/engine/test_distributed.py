"""Training in two processes on the CPU: under torchrun, and by what it sets."""

import os
import subprocess
import sys

import torch

from tests.engine.helpers import CONFIG_FILE, command, options, run
from tests.engine.several import finish, start, train

BASE = """
network["h"] = {"class": "rec", "unit": "nativelstm2", "n_out": 5, "from": "data"}
train["seq_ordering"] = "default"
optimizer = {"class": "gradientdescent"}
num_epochs = 2
max_seqs = 1
log = ["./returnn.log"]
"""


def torchrun(folder, text, *more):
    """Two processes on a config, the command that clients use."""
    (folder / "a.config").write_text(CONFIG_FILE + BASE + text)
    launcher = "--standalone --nnodes=1 --nproc-per-node=2 --tee=3"
    words = [sys.executable, "-mtorch.distributed.run", *launcher.split(), *command("a.config", *more)[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def alone(folder, text):
    """The same config in this process."""
    config = options(folder / "out")
    exec(BASE + text, config)
    del config["__builtins__"], config["log"]
    run(config)


def parameters(path):
    return torch.load(path, weights_only=True)["model"]


def folders(tmp_path):
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
    return tmp_path / "two", tmp_path / "one"


def test_equal_parts_train_as_one(tmp_path):
    """With `torch_distributed` all see all data; in one and the same order, two processes do what one does.

    The first one writes, once.
    """
    two, one = folders(tmp_path)
    text = "torch_distributed = {}\n"
    assert torchrun(two, text).returncode == 0
    alone(one, text)
    found, expected = (parameters(folder / "out" / "model.002.pt") for folder in (two, one))
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)
    assert sorted(path.name for path in (two / "out").iterdir()) == sorted(
        path.name for path in (one / "out").iterdir()
    )
    assert (two / "returnn.log").read_text().count("train epoch 1, finished after 14 steps") == 1


def test_each_has_its_part(tmp_path):
    """Half of the steps, and the scores are those of all sequences. A step in both is the mean of their steps."""
    pair = "train['data'] = train['data'][:2]\nnum_epochs = 1\n"
    parts, two = tmp_path / "parts", tmp_path / "two"
    train(2, {parts: BASE + "learning_rate = 0.0\n", two: BASE + pair})
    one, fresh = tmp_path / "one", tmp_path / "start"
    for folder, text in ((one, "learning_rate = 0.0\n"), (fresh, pair + "save_epoch1_initial_model = True\n")):
        folder.mkdir()
        alone(folder, text)
    assert (parts / "returnn.log").read_text().count("train epoch 2, finished after 7 steps") == 1
    for found, expected in zip(scores(parts), scores(one), strict=True):
        assert abs(found - expected) < 1e-5
    first, both = parameters(fresh / "out/model.000.pt"), parameters(two / "out/model.001.pt")
    steps = []
    for i in (0, 1):
        (tmp_path / str(i)).mkdir()
        alone(tmp_path / str(i), f"train['data'] = train['data'][{i}:{i + 1}]\nnum_epochs = 1\n")
        steps.append(parameters(tmp_path / str(i) / "out/model.001.pt"))
    for name in first.keys() - {"global_step"}:
        expected = first[name] + (steps[0][name] + steps[1][name] - 2 * first[name]) / 2
        torch.testing.assert_close(both[name], expected)


def scores(folder):
    names = {"EpochData": dict}
    table = eval((folder / "out" / "rates").read_text(), names)
    return [table[epoch]["error"][key] for epoch in (1, 2) for key in ("train_score", "train_error", "dev_score")]


def refused(folder, text):
    """The lines on stderr of a config that two processes refuse."""
    (folder / "a.config").write_text(CONFIG_FILE + BASE + text)
    started = start(2, [folder])
    errors = "".join(err for _, err in finish(started))
    assert [process.returncode for process in started] == [1, 1]
    return errors.splitlines()


def test_dumps_of_a_part_of_the_sequences_are_refused(tmp_path):
    dump = {"class": "hdf_dump", "from": "output", "filename": "x.hdf", "is_output_layer": True}
    lines = refused(tmp_path, f'network["dump"] = {dump}\n')
    (line,) = (line for line in lines if " ends because rank " not in line)  # the other rank's, if it came later
    text = "`hdf_dump` needs all sequences in one process, but this is one of 2 by torchrun"
    assert line == f'network["dump"]: {text}'
    assert not (tmp_path / "x.hdf").exists()


def test_other_tasks_are_refused(tmp_path):
    lines = refused(tmp_path, "task = 'eval'\n")
    assert set(lines) == {"task: task 'eval' runs in one process, but torchrun started 2"}
