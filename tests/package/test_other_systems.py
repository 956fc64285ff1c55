"""Without what only systems of the family of Unix have: every module can be imported, and trainings run.

`without_posix.py` takes fcntl, fork, most signals and the like away before our code is imported.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from returnn_lite.engine.interrupt import StopRequest
from returnn_lite.files import own_temporary, remove_abandoned
from returnn_lite.processes import become_helper, start_helper
from tests.engine.helpers import CONFIG_FILE, ROOT

PROGRAM = str(Path(__file__).parent / "without_posix.py")
HOLDER = """
import sys, time
from tests.package.without_posix import take_away
take_away()
from returnn_lite.engine.checkpoints.lock import model_lock
from returnn_lite.log import Log
with model_lock(sys.argv[1], Log.silent()):
    print("locked", flush=True)
    time.sleep(60)
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, PROGRAM, *arguments]
    return subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)


def test_all_modules_can_be_imported(tmp_path: Path):
    done = run(tmp_path, "import")
    assert done.returncode == 0, done.stderr
    modules = [
        path for path in (ROOT / "returnn_lite").rglob("*.py") if path.name not in ("__init__.py", "__main__.py")
    ]
    assert len(done.stdout.splitlines()) > len(modules) > 600


def test_training_and_going_on(tmp_path: Path):
    (tmp_path / "a.config").write_text(CONFIG_FILE)
    for epochs in ("1", "2"):
        done = run(tmp_path, "run", "a.config", "++num_epochs", epochs)
        assert done.returncode == 0, done.stderr
        assert f"Finished training in epoch {epochs}." in done.stdout
    assert not list(tmp_path.glob("out/*.lock")) and not list(tmp_path.glob("out/*tmp*"))


def test_one_training_at_a_time(tmp_path: Path):
    (tmp_path / "a.config").write_text(CONFIG_FILE)
    (tmp_path / "out").mkdir()
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "out" / "model")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=ENVIRONMENT) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == b"locked\n"
            done = run(tmp_path, "run", "a.config")
            assert done.returncode == 1 and f"another run (pid {holder.pid} on" in done.stderr
        finally:
            holder.kill()
    assert run(tmp_path, "run", "a.config", "++num_epochs", "1").returncode == 0


def test_processes_where_no_signal_can_wait(monkeypatch: pytest.MonkeyPatch):
    resource_tracker.ensure_running()  # Python's own processes need it, here
    for name in ("pthread_sigmask", "SIG_BLOCK", "SIG_SETMASK", "SIG_UNBLOCK"):
        monkeypatch.delattr(signal, name)
    process = multiprocessing.get_context("spawn").Process(target=become_helper, kwargs={"of_main_thread": True})
    start_helper(process)
    process.join(60)
    assert process.exitcode == 0


def test_signals_are_those_that_the_system_has():
    assert {signal.SIGINT, signal.SIGTERM} <= set(StopRequest.SIGNALS)
    assert all(isinstance(number, signal.Signals) for number in StopRequest.SIGNALS)


def test_nobody_is_asked_whether_he_lives_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Signal 0 is Ctrl-C there."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    path = str(tmp_path / "x")
    other = Path(own_temporary(path, ".tmp").replace(str(os.getpid()), "1"))
    other.touch()
    remove_abandoned(path, ".tmp")
    assert other.exists()
