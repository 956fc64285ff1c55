"""The settings for torch's threads: the CPUs that a process may use, and what users have set."""

import os

import pytest

from returnn_lite.cpu_threads import share_cpus, usable_cpus


def test_threads_sleep_while_they_wait():
    environ = {}
    share_cpus(environ)
    assert environ["GOMP_SPINCOUNT"] == "100"


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_settings_of_the_user_stay(name):
    environ = {name: "ACTIVE", "OMP_NUM_THREADS": "7", "OPENBLAS_NUM_THREADS": "3"}
    before = dict(environ)
    share_cpus(environ)
    assert environ == before


@pytest.mark.parametrize(("machine", "want"), [("x86_64", "1"), ("AMD64", "1"), ("aarch64", None)])
def test_products_of_numpy(monkeypatch, machine, want):
    """Torch for ARM computes with OpenBLAS, too."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    environ = {}
    share_cpus(environ)
    assert environ.get("OPENBLAS_NUM_THREADS") == want


def group(root, path, **files):
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("texts", "want"), [(("max 100000", "150000 100000"), 2), (("50000 100000", "max 100000"), 1), (("max 1", ""), 64)]
)
def test_quota_of_control_groups(tmp_path, monkeypatch, texts, want):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    (tmp_path / "own").write_text("0::/outer/inner\n")
    for path, text in zip(("outer/inner", "outer"), texts, strict=True):
        group(tmp_path / "root", path, cpu__max=text)
    assert usable_cpus(tmp_path / "own", tmp_path / "root") == want


def test_quota_of_old_control_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    (tmp_path / "own").write_text("4:cpu,cpuacct:/docker/x\n1:name=systemd:/\n")
    group(tmp_path / "root", "cpu/docker/x", cpu__cfs_quota_us="300000", cpu__cfs_period_us="100000")
    group(tmp_path / "root", "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert usable_cpus(tmp_path / "own", tmp_path / "root") == 3


def test_affinity(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert usable_cpus(tmp_path / "missing", tmp_path) == 2
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr("returnn_lite.cpu_threads.usable_cpus", lambda: 2)
    environ = {}
    share_cpus(environ)
    assert environ["OMP_NUM_THREADS"] == "2"
