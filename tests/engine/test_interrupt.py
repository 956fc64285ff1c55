"""Signals: a run ends soon, whatever it waits for; it says how to go on, and leaves nothing half-done."""

import os
import signal
import subprocess
import time

import pytest

from returnn_lite.engine.interrupt import Interrupted, StopRequest
from tests.engine.helpers import CONFIG_FILE, command, rnn

STUCK = """
import os
import time

number = [0]


def map_seq(tensor_dict, **_):
    number[0] += 1
    if number[0] > config.int("fine", 20):
        open("stuck", "w").close()
        open("fifo").read() if os.path.exists("fifo") else time.sleep(1000)
    return tensor_dict


train = {"class": "PostprocessingDataset", "dataset": train, "map_seq": map_seq}
dev = {"class": "PostprocessingDataset", "dataset": dev, "map_seq": map_seq, "seq_ordering": "default"}
num_epochs = 3
log_verbosity = 3
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SOON = 4.0  # seconds: twice as long as promised, for busy machines


def start(folder, *more):
    """A run up to where it is stuck."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as it is where the tests do not run under nohup
    (folder / "a.config").write_text(CONFIG_FILE + STUCK)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command("a.config", *more), cwd=folder, env=ENVIRONMENT, **pipes)
    while not (folder / "stuck").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


def end(process, *signals):
    """Sends signals; seconds until the end, and what stderr says."""
    began = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=600)
    return time.monotonic() - began, errors


@pytest.mark.parametrize("name, more, fifo", [
    ("SIGTERM", (), False),
    ("SIGINT", ("++num_workers", "0"), True),
    ("SIGHUP", ("++fine", "2", "++num_workers", "0"), False),
    ("SIGINT", ("++fine", "0"), True),
])  # fmt: skip
def test_data_that_never_come(tmp_path, name, more, fifo):
    """In the training or in the evaluation, read in a thread or not."""
    if fifo:
        os.mkfifo(tmp_path / "fifo")
    process = start(tmp_path, *more)
    seconds, errors = end(process, getattr(signal, name))
    assert process.returncode == 1 and seconds < SOON
    assert errors == f"{name} received, stopped: resume by running again\n"
    assert not list(tmp_path.glob("out/*.lock")) and not list(tmp_path.glob("out/*tmp"))


def test_going_on_afterwards(tmp_path):
    """The epochs before the signal are not trained again, and all is as in one go."""
    end(start(tmp_path, "++fine", "25"), signal.SIGINT)
    done = rnn("a.config", "++fine", "1000", folder=tmp_path)
    assert done.returncode == 0 and "start training at epoch 2" in done.stdout, done.stderr


def test_forward_leaves_no_half_file(tmp_path):
    """Nor a stale one of a run that was killed."""
    pairs = {"task": "forward", "load": "out/model.001", "forward_data": "dev", "max_seqs": "1"}
    more = [word for key, value in pairs.items() for word in (f"++{key}", value)]
    more += ["++output_file", "o.hdf", "++forward_batch_size", "5"]
    (tmp_path / "a.config").write_text(CONFIG_FILE + STUCK)
    assert rnn("a.config", "++fine", "1000", "++num_epochs", "1", folder=tmp_path).returncode == 0
    end(start(tmp_path, *more, "++fine", "4"), signal.SIGKILL)
    (stale,) = tmp_path.glob(".o.hdf*")
    (tmp_path / "stuck").unlink()
    process = start(tmp_path, *more, "++fine", "4")
    assert not stale.exists() and len(list(tmp_path.glob(".o.hdf*"))) == 1
    _, errors = end(process, signal.SIGTERM)
    assert process.returncode == 1 and errors == "SIGTERM received, stopped: running again starts from scratch\n"
    assert not list(tmp_path.glob("*o.hdf*"))


# --- the context ----------------------------------------------------------------------------------------------------


def test_the_exception_passes_what_deals_with_errors():
    with pytest.raises(Interrupted, match="SIGTERM received, stopped: later"), StopRequest("later"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except Exception:
            pytest.fail("is no Exception")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and StopRequest.innermost is None


def test_gentle_requests_wait_to_be_asked():
    with StopRequest() as outer, StopRequest(gentle=True) as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.2)
        assert stop.received == outer.received == "SIGUSR1"
        with pytest.raises(Interrupted):
            stop.check()


def test_ignored_signals_stay_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("signals, limit", [((signal.SIGINT,), SOON), ((signal.SIGINT, signal.SIGINT), 1.0)])
def test_what_does_not_let_go_is_ended(tmp_path, signals, limit):
    """Code that swallows the exception; a second signal ends it at once."""
    code = """
import time
from returnn_lite.engine.interrupt import StopRequest
with StopRequest(ends_process=True):
    print("begun", flush=True)
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass
"""
    words = [command("x")[0], "-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(words, cwd=os.path.dirname(command("x")[1]), env=ENVIRONMENT, **pipes)
    assert process.stdout.readline() == "begun\n"
    seconds, errors = end(process, *signals)
    assert process.returncode == 1 and seconds < limit and "SIGINT received, stopped" in errors


def test_forked_processes_have_signals_of_their_own():
    """SIGTERM ends a child, as it ends any process, and is none of the parent's."""
    with StopRequest() as stop:
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        time.sleep(0.1)
        assert os.WTERMSIG(status) == signal.SIGTERM and stop.received is None
