"""Jobs of a client in their order: training, search, forward, prior; each the very command and what it then reads."""

import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch

from tests.client.client import CLIENT_ROOT, Job, common, read_rates, read_search, training, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {"train": write_data(folder / "train.hdf", 12, 1), "dev": write_data(folder / "dev.hdf", 5, 2)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """A finished training of two epochs, with its learning-rate file linked to the output as the client does."""
    job = Job(tmp_path_factory.mktemp("job"))
    job.write(**training(job), **data)
    done = job.run()
    assert done.returncode == 0, done.stderr
    os.link(job.work / "learning_rates", job.output / "learning_rates")
    return job


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def loading(trained, epoch=2):
    """`load` with a checkpoint of TensorFlow: its path without suffix."""
    return str(trained.output / "models" / f"epoch.{epoch:03d}")


# --- training -------------------------------------------------------------------------------------------------------


def test_files_of_a_training(trained):
    assert trained.files() == ["learning_rates", "returnn.log"]
    kinds = (".data-00000-of-00001", ".index", ".meta", ".opt.pt", ".pt")
    expected = {"checkpoint", *(f"epoch.{epoch:03d}{kind}" for epoch in (1, 2) for kind in kinds)}
    assert {path.name for path in (trained.output / "models").iterdir()} == expected


def test_learning_rate_file(trained):
    text = (trained.work / "learning_rates").read_text()
    rates = read_rates(trained.work / "learning_rates")
    assert text.endswith("}\n") and text.startswith("{\n1: EpochData(learningRate=0.01, error={\n")
    assert list(rates) == [1, 2] and all(set(row) == {"learningRate", "error"} for row in rates.values())
    for row in rates.values():
        assert list(row["error"]) == sorted(row["error"])
        assert {"train_score_frames", "dev_score_frames", "dev_error_output/prob"} <= set(row["error"])
        meta = {key for key in row["error"] if key.startswith(":meta:")}
        names = ("effective_learning_rate", "epoch_num_train_steps", "epoch_train_time_secs", "global_train_step")
        assert meta == {f":meta:{name}" for name in names}
        assert all(type(value) in (float, int) for value in row["error"].values())


def test_a_finished_training_has_nothing_to_do(trained):
    done = trained.run()
    assert done.returncode == 0
    assert "No epochs to train, start_epoch: 3, final_epoch: 2" in done.stdout
    assert (trained.output / "learning_rates").read_text() == (trained.work / "learning_rates").read_text()


def test_options_on_the_command_line(job, data):
    """`++key value` in the order of the keys, without quotes; the config sees them, and they win in the end."""
    seen = """
ext_model = config.value("ext_model", None)
model = ext_model + "/epoch"
num_epochs = config.int("ext_epochs", 7)
newbob_error_threshold = 0.5
save_interval = 1
chunking = (0, 0)
seen = [config.value("ext_beam", None), config.bool("ext_flag", False), config.typed_value("ext_beam")]
def show():
    print("seen", seen, config.list("ext_list"), newbob_error_threshold, chunking, model)
"""
    options = training(job) | data
    del options["model"]
    job.write(epilog=seen.replace("config.", "old."), **options)
    job.config.write_text(job.config.read_text().replace("#!rnn.py", "#!rnn.py\nold = config", 1))
    pairs = {
        "chunking": "(3,2)", "ext_beam": "12", "ext_epochs": "1", "ext_flag": "True", "ext_list": "a,b",
        "ext_model": str(job.output / "other"), "newbob_error_threshold": "+-3", "task": "config:show",
    }  # fmt: skip
    done = job.run(*(word for key in sorted(pairs) for word in (f"++{key}", pairs[key])))
    assert done.returncode == 0, done.stderr
    assert f"seen ['12', True, None] ['a', 'b'] -3 (3, 2) {job.output}/other/epoch" in done.stdout


def test_replaced_while_running(job, data):
    """The linked learning-rate file of a running training is never seen half-written: it is another file each time."""
    job.write(**training(job) | {"num_epochs": 1} | data)
    assert job.run().returncode == 0
    link = job.output / "linked"
    os.link(job.work / "learning_rates", link)
    before = link.read_text()
    job.write(**training(job) | {"num_epochs": 2} | data)
    assert job.run().returncode == 0
    assert link.read_text() == before and list(read_rates(job.work / "learning_rates")) == [1, 2]
    assert job.files() == ["learning_rates", "returnn.log"]


def test_names_beside_the_options(job, data):
    """The config's own `config` is no option, the later dict counts, and paths are those of the working directory."""
    write_data(job.work / "here.hdf", 3, 5)
    late = '{"num_epochs": 1, "eval": {"class": "HDFDataset", "files": ["here.hdf"]}}'
    options = training(job) | {"num_epochs": 9, "num_outputs": {"classes": [4, 1]}} | data
    job.write(late, **options)
    done = job.run()
    assert done.returncode == 0, done.stderr
    assert "Finished training in epoch 1." in done.stdout and " eval: score " in done.stdout


def test_layers_with_the_torch_backend(job, data):
    options = training(job) | {"num_epochs": 1, "backend": "torch"} | data
    del options["use_tensorflow"]
    job.write(**options)
    assert job.run().returncode == 0
    assert {path.name for path in (job.output / "models").iterdir()} == {"epoch.001.pt", "epoch.001.opt.pt"}


# --- exit codes -----------------------------------------------------------------------------------------------------


WRONG = {"no task": "unknown task: 'foo'", "no data": "no train files specified", "sprint": "needs RASR", "fails": "no"}


@pytest.mark.parametrize("what", WRONG)
def test_errors_end_with_1(job, data, what):
    changes = {
        "no task": {"task": "foo"}, "no data": {"train": None}, "sprint": {"train": {"class": "ExternSprintDataset"}},
    }  # fmt: skip
    options = {**training(job), **data, **changes.get(what, {})}
    job.write(epilog="raise ValueError('no')" if what == "fails" else "network = {}", **options)
    done = job.run()
    assert done.returncode == 1 and WRONG[what] in done.stderr.splitlines()[0]


def test_many_processes_of_mpi_are_refused(job, data):
    job.write(**training(job), **data)
    done = job.run(OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="1")
    assert done.returncode == 1 and "mpirun" in done.stderr and "torchrun" in done.stderr
    assert job.files() == []


def test_a_signal_ends_it_after_the_step(job, data):
    """Not 0, so the client knows it is not done; the next run of the command goes on."""
    job.write(**training(job) | {"num_epochs": 10000, "cleanup_old_models": True} | data)
    command = [sys.executable, str(CLIENT_ROOT / "rnn.py"), str(job.config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=job.work, text=True, env=environment, **pipes)
    deadline = time.monotonic() + 120
    while not (job.output / "models" / "epoch.001.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1 and "resume by running again" in errors
    last = max(read_rates(job.work / "learning_rates"))
    job.write(**training(job) | {"num_epochs": last} | data)
    assert job.run().returncode == 0


# --- the jobs after a training --------------------------------------------------------------------------------------


def searching(trained, data, job, name):
    return common() | {
        "task": "search",
        "load": loading(trained),
        "search_output_file_format": "txt" if name.endswith(".txt") else "py",
        "need_data": False,
        "search_do_eval": 0,
        "max_seq_length": 0,
        "search_data": data["dev"],
        "search_output_layer": "output" if name.startswith("n_best") else "decision",
        "search_output_file": str(job.output / name),
    }


@pytest.mark.parametrize("name", ["search_out.py.gz", "n_best.py", "search_out.txt"])
def test_search(trained, data, job, name):
    job.write(**searching(trained, data, job, name))
    done = job.run()
    assert done.returncode == 0, done.stderr
    if name.endswith(".txt"):
        assert len((job.output / name).read_text().splitlines()) == 5
        return
    found = read_search(job.output / name)
    assert set(found) == {f"corpus/rec-{i}/1" for i in range(5)}
    for value in found.values():
        texts = [text for _, text in value] if name.startswith("n_best") else [value]
        assert all(set(text.split()) <= {"a@@", "b", "c"} for text in texts)
        if name.startswith("n_best"):
            assert all(type(score) is float for score, _ in value) and max(value) == value[0]


def test_forward(trained, data, job):
    """The output appears in the working directory, as does the log, however quiet; an old output is written over."""
    options = {"task": "forward", "output_file": "output.hdf", "forward_override_hdf_output": True, "log_verbosity": 1}
    options |= {"load": loading(trained) + ".pt", "eval": data["dev"], "forward_batch_size": 40}
    job.write(**common() | options | {"forward_output_layer": "frames", "tf_log_dir": "returnn-tf-log"})
    (job.work / "output.hdf").touch()
    done = job.run()
    assert done.returncode == 0, done.stderr
    assert {"output.hdf", "returnn.log"} <= set(job.files())
    with h5py.File(job.work / "output.hdf") as file:
        lengths, tags = file["seqLengths"][:, 0], file["seqTags"].asstr()[()]
        assert file["inputs"].shape == (lengths.sum(), 4) and set(tags) == {f"corpus/rec-{i}/1" for i in range(5)}


def test_prior(trained, data, job):
    options = {"task": "compute_priors", "load": loading(trained, 1), "output_file": str(job.output / "prior.txt")}
    options |= {"train": data["train"], "num_outputs": {"classes": [4, 1]}, "forward_output_layer": "frames"}
    job.write(**common() | options)
    done = job.run()
    assert done.returncode == 0, done.stderr
    prior = np.loadtxt(job.output / "prior.txt", delimiter=" ")
    assert prior.shape == (4,) and np.isclose(np.exp(prior).sum(), 1)


def test_dumps_of_a_framewise_net(job, data):
    """One entry per sequence, though training and evaluation pack frames of several into a batch."""
    net = {
        "output": {"class": "softmax", "from": "data", "target": "classes", "loss": "ce"},
        "dump": {"class": "hdf_dump", "from": "output", "filename": "dump.hdf", "is_output_layer": True},
    }
    options = {"task": "eval", "load": str(job.output / "random"), "dev": data["dev"], "batch_size": 7}
    torch.save({"model": {"output/W": torch.eye(4), "output/b": torch.zeros(4)}}, job.output / "random.pt")
    job.write(epilog=f"network = {net!r}", **common() | options)
    done = job.run()
    assert done.returncode == 0, done.stderr
    with h5py.File(job.work / "dump.hdf") as file:
        assert set(file["seqTags"].asstr()[()]) == {f"corpus/rec-{i}/1" for i in range(5)}
