"""Training runs: resuming, changing networks, checkpoints, broken scores."""

import os
import random
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from returnn_lite.config import Config
from returnn_lite.engine.checkpoints.checkpoint import read_model
from returnn_lite.engine.models.descriptions import description_diff, same_description
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.tasks import run_task
from tests.engine.helpers import CONFIG_FILE, ROOT, Lines, command, dataset, network, options, rnn, run

RECURRENT = {**network(), "h": {"class": "rec", "unit": "lstm", "n_out": 3, "from": "data"}}
LOCK_HOLDER = """
import sys, time
from returnn_lite.engine.checkpoints.lock import model_lock
from returnn_lite.log import Log
with model_lock(sys.argv[1], Log.silent()):
    print("locked", flush=True)
    time.sleep(60)
"""


def model(folder, epoch, name="model"):
    return torch.load(folder / f"{name}.{epoch:03d}.pt", weights_only=True)


def rates(path):
    """The learning-rate file without the entry that depends on the clock."""
    return re.sub(r"':meta:epoch_train_time_secs': \d+,\n", "", path.read_text())


def same(a, b):
    assert a["model"].keys() == b["model"].keys()
    return all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def test_files_of_a_run(tmp_path):
    lines = run(options(tmp_path, num_epochs=4))
    assert sorted(os.listdir(tmp_path)) == [
        "model.001.pt", "model.002.pt", "model.003.opt.pt", "model.003.pt", "model.004.opt.pt", "model.004.pt", "rates",
    ]  # fmt: skip
    content = model(tmp_path, 4)
    assert content["epoch"] == 4 and content["step"] == 12
    assert content["model"]["global_step"] == 12 and content["model"]["global_step"].dtype == torch.int64
    assert sorted(content["model"]) == ["global_step", "h/W", "h/b", "output/W", "output/b"]
    assert lines.count(f"Save model under {tmp_path}/model.004") == 2
    assert lines[-1] == "Finished training in epoch 4."


def test_log_lines(tmp_path):
    lines = run(options(tmp_path, num_epochs=1, log_batch_size=True))
    number = r"-?\d+(\.\d+)?(e-\d+)?"
    times = r"\d+\.\d{3} sec/step, elapsed 0:00:\d\d, exp. remaining 0:00:\d\d, complete \d+\.\d\d%"
    sizes = r"max_size:classes \d+, max_size:data \d+, num_seqs 1"
    patterns = [
        "start training at epoch 1",
        "using batch size: 30, max seqs: 4",
        "pretrain: None",
        "start epoch 1 with learning rate 0.02 ...",
        rf"train epoch 1, step 1, cost:output {number}, error:output {number}, loss {number}, {sizes}, {times}",
        r"train epoch 1, finished after 3 steps, 0:00:00 elapsed \(\d+\.\d% computing time\)",
        rf"epoch 1 score: {number} error: {number} elapsed: 0:00:00",
        rf"epoch 1 'dev' eval, step 0, cost:output {number}, error:output {number}, loss {number}, .*",
        rf"dev: score {number} error {number}",
    ]
    found = [next((i for i, line in enumerate(lines) if re.fullmatch(pattern, line)), None) for pattern in patterns]
    assert None not in found and found == sorted(found)


def test_two_and_two_epochs_are_four(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = {"train": dataset(14, 1, seq_ordering="laplace:.5", partition_epoch=2), "accum_grad_multiple_step": 2}
    run(options(whole, num_epochs=4, **changes))
    run(options(parts, num_epochs=2, **changes))
    run(options(parts, num_epochs=4, **changes))
    assert same(model(whole, 4), model(parts, 4))
    assert rates(whole / "rates") == rates(parts / "rates")


def test_finished_run_is_left_alone(tmp_path):
    run(options(tmp_path, num_epochs=2))
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "rates"}
    lines = run(options(tmp_path, num_epochs=2))
    assert "No epochs to train, start_epoch: 3, final_epoch: 2" in lines
    assert before == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "rates"}


def test_missing_scores_are_made_up(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(options(whole))
    run(options(parts))
    for path in parts.glob("model.003*"):
        path.unlink()
    text = (parts / "rates").read_text()
    (parts / "rates").write_text(text[: text.index("2: EpochData")] + "}\n")  # killed before the file was written
    lines = run(options(parts))
    assert "Last epoch model not yet evaluated on dev. Doing that now." in lines
    assert rates(whole / "rates") == rates(parts / "rates")


def test_without_learning_rate_file(tmp_path):
    """The control's history is in the checkpoint."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = {"learning_rate_file": None, "newbob_relative_error_threshold": -0.5}
    first = run(options(whole, num_epochs=4, **changes))
    run(options(parts, num_epochs=2, **changes))
    second = run(options(parts, num_epochs=4, **changes))
    assert same(model(whole, 4), model(parts, 4))
    starts = [line for line in first if line.startswith("start epoch")]
    assert starts[-1] == [line for line in second if line.startswith("start epoch")][-1] != starts[0]


def test_epoch_without_optimizer_state_is_no_start(tmp_path):
    run(options(tmp_path))
    os.remove(tmp_path / "model.003.opt.pt")
    lines = run(options(tmp_path))
    assert "note: models without optimizer state, from which training cannot continue: epochs [3]" in lines
    assert "start training at epoch 3" in lines


def test_models_that_cannot_be_continued_are_not_overwritten(tmp_path):
    run(options(tmp_path))
    for path in tmp_path.glob("*.opt.pt"):
        path.unlink()
    with pytest.raises(ConfigError, match="`start_epoch` 4 continues with a fresh optimizer, 1 starts from scratch"):
        run(options(tmp_path, num_epochs=4))
    lines = run(options(tmp_path, num_epochs=4, start_epoch=4))
    assert "warning: the optimizer starts from scratch: its state of epoch 3 is missing" in lines
    assert model(tmp_path, 4)["step"] == 12


def test_epoch_without_batches(tmp_path):
    lines = run(options(tmp_path, num_epochs=1, min_seq_length=100, network=RECURRENT))
    assert any(line.startswith("warning: train epoch 1 has no batches") for line in lines)


def test_stale_files_are_removed(tmp_path):
    (tmp_path / "model.001.pt.tmp").write_text("half")
    (tmp_path / "other.001.pt.tmp").write_text("half")
    run(options(tmp_path, num_epochs=1))
    assert sorted(path.name for path in tmp_path.glob("*.tmp")) == ["other.001.pt.tmp"]


def test_one_training_at_a_time(tmp_path):
    command_line = [sys.executable, "-c", LOCK_HOLDER, str(tmp_path / "model")]
    with subprocess.Popen(command_line, stdout=subprocess.PIPE, cwd=ROOT) as holder:
        try:
            assert holder.stdout.readline() == b"locked\n"
            with pytest.raises(ConfigError, match=rf"another run \(pid {holder.pid} on .*\) is training"):
                run(options(tmp_path))
            run(options(tmp_path, model=str(tmp_path / "other"), num_epochs=1))
        finally:
            holder.kill()
    run(options(tmp_path, num_epochs=1))
    assert not list(tmp_path.glob("*.lock"))


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for key in "model", "learning_rate_file":
        with pytest.raises(ConfigError, match=f"{key}: .*cannot be written: "):
            run(options(tmp_path, **{key: str(tmp_path / "file" / "x")}))
    assert os.listdir(tmp_path) == ["file"]


def test_save_interval_and_initial_model(tmp_path):
    run(options(tmp_path, save_interval=2, save_epoch1_initial_model=True))
    assert sorted(path.name for path in tmp_path.glob("*.pt") if "opt" not in path.name) == [
        "model.000.pt",
        "model.002.pt",
        "model.003.pt",
    ]


def test_dry_run_and_no_model(tmp_path):
    run(options(tmp_path, dry_run=True))
    assert os.listdir(tmp_path) == []
    run(options(tmp_path, model=None))
    assert os.listdir(tmp_path) == ["rates"]


def test_tensorboard_on_request(tmp_path):
    pytest.importorskip("tensorboard")
    run(options(tmp_path, num_epochs=1, model=None, tf_log_dir=str(tmp_path / "board")))
    assert list((tmp_path / "board").glob("events*"))


def test_import_of_arrays(tmp_path):
    run(options(tmp_path / "old", num_epochs=1))
    arrays = {name: value.numpy() for name, value in model(tmp_path / "old", 1)["model"].items()}
    np.savez(tmp_path / "start.npz", **arrays)
    changes = {"import_model_train_epoch1": str(tmp_path / "start.npz"), "learning_rate": 0.0, "num_epochs": 1}
    lines = run(options(tmp_path / "new", **changes))
    assert "start training at epoch 1" in lines
    new = model(tmp_path / "new", 1)["model"]
    assert torch.equal(new["h/W"], torch.from_numpy(arrays["h/W"])) and new["global_step"] == 6


def test_load_counts_its_epoch(tmp_path):
    run(options(tmp_path / "old", num_epochs=2))
    load = str(tmp_path / "old" / "model.002.pt")
    assert "start training at epoch 3" in run(options(tmp_path / "a", load=load))
    assert "No epochs to train, start_epoch: 3, final_epoch: 2" in run(options(tmp_path / "b", load=load, num_epochs=2))
    assert "start training at epoch 1" in run(options(tmp_path / "c", load=load, start_epoch=1))


def test_load_errors_name_all_parameters(tmp_path):
    run(options(tmp_path, num_epochs=1))
    changes = {"load": str(tmp_path / "model.001"), "start_epoch": 1, "model": str(tmp_path / "new")}
    with pytest.raises(ConfigError, match=r"h/W is \(4, 6\), in the file \(4, 5\); h/b is .*; output/W is"):
        run(options(tmp_path, network=network(6), **changes))
    renamed = network()
    renamed["hidden"] = renamed.pop("h")
    renamed["output"]["from"] = "hidden"
    with pytest.raises(ConfigError, match=r"lacks 2 of 4 parameters: hidden/W \(4, 5\), hidden/b \(5,\)"):
        run(options(tmp_path, network=renamed, **changes))
    run(options(tmp_path, network=renamed, load_ignore_missing_vars=True, **changes))


# --- networks per epoch ---------------------------------------------------------------------------------------------


def growing(epoch, **_):
    net = network(5)
    if epoch >= 2:
        net["h2"] = {"class": "linear", "activation": "relu", "n_out": 5, "from": "h"}
        net["output"]["from"] = "h2"
        net["#config"] = {"batch_size": 20, "learning_rate": 0.001}
    return net


def test_get_network(tmp_path):
    lines = run(options(tmp_path, network=None, get_network=growing, num_epochs=4))
    assert lines.count("reinit because network description differs. Diff:") == 1
    assert "['h2'] added: {'class': 'linear', 'activation': 'relu', 'n_out': 5, 'from': 'h'}" in lines
    assert "Update config key 'batch_size' for epoch 2: 30 -> 20" in lines
    assert "start epoch 2 with learning rate 0.001 ..." in lines
    assert "h2/W" not in model(tmp_path, 1)["model"] and "h2/W" in model(tmp_path, 2)["model"]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_get_network_resumes(tmp_path, stop):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(options(whole, network=None, get_network=growing, num_epochs=4))
    run(options(parts, network=None, get_network=growing, num_epochs=stop))
    run(options(parts, network=None, get_network=growing, num_epochs=4))
    assert same(model(whole, 4), model(parts, 4))
    assert rates(whole / "rates") == rates(parts / "rates")


def test_a_new_network_each_epoch(tmp_path):
    lines = run(options(tmp_path, reinit_network_each_epoch=True))
    assert lines.count("reinit of each epoch") == 2


def test_packed_batches(tmp_path):
    """Only real frames count: 30 of them are more sequences than 30 with padding."""
    changes = {"batch_size": None, "max_seqs": 100, "num_epochs": 1, "log_batch_size": True, "network": {
        **network(), "e": {"class": "eval", "from": "h", "eval": "source(0)", "loss": "as_is"}}}  # fmt: skip
    lines = run(options(tmp_path, packed_batch_size=60, **changes))
    sizes = [line for line in lines if line.startswith("train epoch 1, step ")]
    frames = sum(len(seq["data"]) for seq in dataset(14, 1)["data"])
    assert len(sizes) == -(-frames // 60)


def test_out_of_memory_is_explained(tmp_path, monkeypatch):
    """With the batch, its options, and the layers with the largest outputs."""

    def full(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("returnn_lite.engine.training_pass.run_step", full)
    with pytest.raises(ConfigError) as caught:
        run(options(tmp_path, network=network(n_out=7)))
    parts = str(caught.value).split("; ")
    assert parts[0].startswith("batch_size: out of GPU memory in a batch of shapes {'classes': (1, 26)")
    assert parts[0].endswith(", with batch_size 30, max_seqs 4")
    assert parts[1].startswith("largest outputs: h [1, 26, 7]: 0 MB, ") and parts[2].startswith("sequences ['seq-3', ")


def test_scores_of_another_name(tmp_path):
    lines = run(options(tmp_path, num_epochs=2, learning_rate_control_error_measure="dev_scor"))
    warnings = [line for line in lines if "error_measure: unknown score 'dev_scor'; did you mean \"dev_score\"" in line]
    assert len(warnings) == 1 and warnings[0].endswith("'dev_score' is used")
    lines = run(options(tmp_path / "b", num_epochs=2, learning_rate_control_error_measure="dev_error"))
    assert not any("unknown score" in line for line in lines)


def test_no_tensorboard_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    lines = run(options(tmp_path, num_epochs=1, tf_log_dir=str(tmp_path / "tb")))
    assert any(line.startswith("WARNING: loggers: no scalars for tensorboard") for line in lines)


def test_precision_is_checked(tmp_path):
    with pytest.raises(ConfigError, match="must be one of .* but is 'hihg' instead; did you mean \"high\""):
        run(options(tmp_path, float32_matmul_precision="hihg"))


def test_config_entry_must_exist(tmp_path):
    with pytest.raises(ConfigError, match="max_seq_length.* must be an option of the config"):
        run(options(tmp_path, network={**network(), "#config": {"max_seq_length": 3}}))


def test_descriptions_are_compared_deeply():
    function, array = (lambda: 1), np.arange(3)
    a = {"x": [1, {"f": function, "a": array}], "t": (1, 2)}
    assert same_description(a, {"x": [1, {"f": function, "a": array.copy()}], "t": (1, 2)})
    for other in ({**a, "t": [1, 2]}, {**a, "y": 1}, {**a, "x": [1, {"f": lambda: 1, "a": array}]}):
        assert not same_description(a, other)
        assert list(description_diff(a, other))


# --- broken scores --------------------------------------------------------------------------------------------------


def broken_train(value):
    data = dataset(14, 1)
    data["data"][9]["data"][1] = value
    return data


def test_nan_stops_before_the_checkpoint(tmp_path):
    with pytest.raises(ConfigError) as error:
        run(options(tmp_path, train=broken_train([float("inf"), float("-inf"), 0.0, 0.0])))
    text = str(error.value)
    assert text.startswith("Inf/nan score in train epoch 1, step 1: cost:output nan")
    log = Lines()
    with pytest.raises(ConfigError):
        run_task(Config(options(tmp_path, train=broken_train([float("inf")] * 4))), Log([log]))
    assert log.lines[-3].startswith("train epoch 1, step 1, cost:output nan")  # the step is in the log, too
    assert "seq-9" in text and "data:data is not finite" in text
    assert not list(tmp_path.glob("model*"))


def test_nan_in_the_data_is_found_there(tmp_path):
    with pytest.raises(ConfigError, match='sequence "seq-9": "data" holds NaN'):
        run(options(tmp_path, train=broken_train(float("nan"))))


def test_nan_goes_on_if_asked(tmp_path):
    lines = run(options(tmp_path, train=broken_train(float("nan")), stop_on_nonfinite_train_score=False, num_epochs=1))
    assert any(line.startswith("Model seems broken, got inf or nan final score: {'cost:output': nan") for line in lines)
    assert "'train_score': float('nan')" in (tmp_path / "rates").read_text()


# --- preload_from_files ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    run(options(folder, num_epochs=1))
    return folder / "model.001"


def preload(folder, old, net=None, **entry):
    changes = {"preload_from_files": {"x": {"filename": str(old), "init_for_train": True, **entry}}}
    run(options(folder, num_epochs=1, learning_rate=0.0, network=net or network(), **changes))
    return model(folder, 1)["model"], read_model(str(old))


def prefixed():
    net = network()
    net["new_h"], net["new_output"] = net["h"], {**net.pop("output"), "from": "new_h"}
    net["output"] = {"class": "softmax", "loss": "ce", "from": "new_output", "target": "classes"}
    del net["h"]
    return net


def test_preload(tmp_path, old):
    new, values = preload(tmp_path, old)
    assert torch.equal(new["h/W"], values["h/W"]) and torch.equal(new["output/b"], values["output/b"])


def test_preload_prefix(tmp_path, old):
    new, values = preload(tmp_path, old, prefixed(), prefix="new_")
    assert torch.equal(new["new_h/W"], values["h/W"]) and torch.equal(new["new_output/W"], values["output/W"])
    assert new["output/W"].shape == (4, 4)


def test_preload_ignore_and_map(tmp_path, old):
    new, values = preload(tmp_path, old, prefixed(), prefix="new_", ignore_params_prefixes=("new_output/",))
    assert not torch.equal(new["new_output/W"], values["output/W"])
    net = network()
    net["g"], net["output"] = net.pop("h"), {**net["output"], "from": "g"}
    new, values = preload(tmp_path / "b", old, net, var_name_mapping={"g/W": "h/W", "g/b": "h/b"})
    assert torch.equal(new["g/W"], values["h/W"])
    made = preload(
        tmp_path / "c", old, net, custom_missing_load_func=lambda name, shape, reader: torch.ones(shape).numpy()
    )
    assert made[0]["g/W"].eq(1).all() and torch.equal(made[0]["output/W"], values["output/W"])


def test_preload_errors(tmp_path, old):
    with pytest.raises(ConfigError, match='contains the prefix "nwe_"; parameters: h/W'):
        preload(tmp_path, old, prefix="nwe_")
    with pytest.raises(ConfigError, match='unknown option "prefiks"; did you mean "prefix"'):
        preload(tmp_path, old, prefiks="nwe_")
    with pytest.raises(ConfigError, match=r"lacks 1 of 3 parameters: extra/W \(4, 7\)|lacks 2 of"):
        preload(tmp_path, old, {**network(), "extra": {"class": "linear", "n_out": 7, "from": "data", "loss": "as_is"}})


# --- ends of processes ----------------------------------------------------------------------------------------------


def started(folder, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command("train.config", *arguments),
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def prepared(folder, **changes):
    (folder / "out").mkdir(parents=True)
    text = CONFIG_FILE + "".join(f"{key} = {value!r}\n" for key, value in changes.items())
    (folder / "train.config").write_text(text)
    return folder


SLOW = {
    "batch_size": 3,
    "num_epochs": 12,
    "log_verbosity": 3,
    "cleanup_old_models": {"keep_last_n": 2, "keep_best_n": 1},
}


def test_kill_at_any_moment(tmp_path):
    whole, parts = prepared(tmp_path / "whole", **SLOW), prepared(tmp_path / "parts", **SLOW)
    assert rnn("train.config", folder=whole).returncode == 0
    chance = random.Random(5)
    for _ in range(3):
        process = started(parts)
        for line in process.stdout:
            if line.startswith(("train epoch", "dev:", "epoch")) and chance.random() < 0.15:
                break
        time.sleep(chance.random() * 0.02)
        process.kill()
        process.communicate()
    assert rnn("train.config", folder=parts).returncode == 0
    assert same(model(whole / "out", 12), model(parts / "out", 12))
    assert rates(whole / "out" / "rates") == rates(parts / "out" / "rates")
    assert sorted(os.listdir(whole / "out")) == sorted(os.listdir(parts / "out"))


def test_sigterm(tmp_path):
    folder = prepared(tmp_path / "a", batch_size=3, num_epochs=10000, log_verbosity=5)
    process = started(folder)
    for line in process.stdout:
        if line.startswith("train epoch 2, step 3"):
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1
    assert errors.splitlines()[0] == "SIGTERM received, stopped: resume by running again"


def test_start_takes_little_more_than_torch(tmp_path):
    folder = prepared(tmp_path / "a", num_epochs=1)

    def processor_seconds(run):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run().returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    torch_only = processor_seconds(lambda: subprocess.run([sys.executable, "-c", "import torch"]))
    assert processor_seconds(lambda: rnn("train.config", folder=folder)) < torch_only + 3  # 1.5 on an idle machine
