"""Several processes that cannot train together, or do not any more: each ends, with one line that says why."""

import socket
from datetime import timedelta

import pytest

from returnn_lite.config import Config
from returnn_lite.engine.distributed.join import backend_for, joined_world, own_device
from returnn_lite.engine.distributed.launch import check_launcher, processes
from returnn_lite.engine.distributed.options import DistributedOptions
from returnn_lite.errors import ConfigError
from tests.engine.helpers import CONFIG_FILE
from tests.engine.several import environment, finish, start

IN_A_RANK = """
import os
calls = []

def fail(source, **_):
    calls.append(1)
    if os.environ["RANK"] == "{rank}" and len(calls) > 6:
        {what}
    return source(0)

network["h"]["from"] = "first"
network["first"] = {{"class": "eval", "from": "data", "eval": fail}}
"""
CASES = {
    "error": IN_A_RANK.format(rank=1, what="raise ValueError('bad sample')"),
    "first": IN_A_RANK.format(rank=0, what="raise ValueError('bad sample')"),
    "killed": IN_A_RANK.format(rank=1, what="os.kill(os.getpid(), 9)"),
    "data": "import os\ntrain['data'] = train['data'][int(os.environ['RANK']):]\n",
    "network": "import os\nnetwork['h']['n_out'] += int(os.environ['RANK'])\n",
    "fsdp": "torch_distributed = {'class': 'fsdp', 'options': {'modules': ['hh']}}\n",
    "late": """
import os, time

def get_network(epoch, **_):
    time.sleep(int(os.environ["RANK"]))
    return {**network, "h": {**network["h"], "n_oot": 3}}
""",
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Exit codes and what is on stderr, by case and rank."""
    base, started = tmp_path_factory.mktemp("ends"), {}
    for name, text in CASES.items():
        (base / name).mkdir()
        (base / name / "a.config").write_text(f"{CONFIG_FILE}max_seqs = 1\nlog_verbosity = 2\n{text}")
        started[name] = start(2, [base / name])
    errors = {name: [err for _, err in finish(group)] for name, group in started.items()}
    return {name: ([process.returncode for process in started[name]], errors[name]) for name in CASES}


@pytest.mark.parametrize(("name", "rank"), [("error", 1), ("first", 0)])
def test_the_error_of_a_rank_ends_all(ends, name, rank):
    codes, errors = ends[name]
    assert codes == [1, 1]
    failed, other = errors[rank], errors[1 - rank]
    assert "bad sample" in failed.splitlines()[0]
    assert other.splitlines()[0].startswith(f"rank {1 - rank} ends because rank {rank} failed: ")
    assert "bad sample" in other.splitlines()[0] and "Traceback" not in other


def test_a_killed_rank_ends_all(ends):
    codes, (first, second) = ends["killed"]
    assert codes == [1, -9] and not second
    text = "rank 0 ends because rank 1 ended without an error (killed?), or does not respond"
    assert first.splitlines() == [text]


def said(errors):
    """The error, and what a rank says that saw another one end before it found the error itself."""
    lines = errors.splitlines()
    found = [line for line in lines if " ends because rank " not in line]
    assert len(found) == 1, errors
    return found[0], [line for line in lines if line not in found]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data", "train: rank 1 sees different data than rank 0: number of sequences 13 instead of 14"),
        ("network", "network: rank 1 builds a different network than rank 0: hash of names"),
        ("fsdp", 'torch_distributed["options"]["modules"]: unknown layer \'hh\'; did you mean "h"?'),
        ("late", "network[\"h\"]: layer class 'linear' has no option 'n_oot'"),
    ],
)
def test_what_all_find_is_said_once(ends, name, text):
    codes, errors = ends[name]
    assert codes == [1, 1]
    found, others = said("".join(errors))
    assert found.startswith(text)
    assert all(line.startswith("rank ") and " ends because rank " in line for line in others)


@pytest.mark.parametrize(
    ("changes", "name", "text"),
    [
        ({"RANK": "x"}, "RANK", "int"),
        ({"RANK": "2"}, "RANK", "must be at least 0 and less than WORLD_SIZE 2, but is 2 instead"),
        ({"RANK": "-1"}, "RANK", "but is -1 instead"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE", "must be at least 1, but is 0 instead"),
        ({"WORLD_SIZE": ""}, "RANK", "less than WORLD_SIZE (1, as it is not set) 1, but is 1 instead"),
        ({"LOCAL_RANK": "5"}, "LOCAL_RANK", "less than LOCAL_WORLD_SIZE 2, but is 5 instead"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK", "must be set, since WORLD_SIZE is 2; torchrun sets all of RANK"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR", "must be set, since WORLD_SIZE is 2"),
    ],
)
def test_variables_that_contradict_each_other(changes, name, text):
    with pytest.raises(ConfigError) as caught:
        check_launcher({**environment(1, 2, 1234), **changes})
    assert caught.value.path == f"environment variable {name}" and text in caught.value.message


def test_a_launcher_that_is_right():
    check_launcher({})
    check_launcher(environment(1, 2, 1234))
    assert processes(environment(1, 2, 1234)) == (1, 2) and processes({}) == (0, 1)


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        ("ddp", "", "must be a dict or None, but is 'ddp' instead"),
        ({"reduce_typ": "grad"}, '["reduce_typ"]', 'unknown option; did you mean "reduce_type"?'),
        ({"reduce_type": "grads"}, '["reduce_type"]', "but is 'grads' instead; did you mean \"grad\"?"),
        ({"reduce_type": "param"}, '["param_sync_step"]', 'must be set with "reduce_type": "param"'),
        ({"reduce_type": "param", "param_sync_step": 0}, '["param_sync_step"]', "greater than 0, but is 0 instead"),
        ({"param_sync_step": 5}, '["param_sync_step"]', 'only with "reduce_type": "param", but that is "grad"'),
        ({"sync_on_cpu": True}, '["sync_on_cpu"]', 'only with "reduce_type": "param"'),
        ({"reduce_type": "param", "param_sync_step": 2, "class": "ddp"}, '["class"]', 'with "reduce_type": "grad"'),
        ({"class": "fsdp2"}, '["class"]', 'did you mean "fsdp"?'),
        ({"backend": "glo"}, '["backend"]', "unknown backend 'glo'; did you mean \"gloo\"?"),
        ({"timeout_sec": "1"}, '["timeout_sec"]', "must be a number greater than 0, but is '1' instead"),
        ({"options": ["a"]}, '["options"]', "must be a dict, but is ['a'] instead"),
        ({"data": "half"}, '["data"]', 'must be one of "whole", "shares", but is \'half\' instead'),
    ],
)
def test_wrong_options(value, path, text):
    with pytest.raises(ConfigError) as caught:
        DistributedOptions.from_config(Config({"torch_distributed": value}))
    assert caught.value.path == f"torch_distributed{path}" and text in caught.value.message


def test_options_as_they_are_used():
    given = {"class": "torch.nn.parallel.DistributedDataParallel", "options": {"find_unused_parameters": True}}
    made = DistributedOptions.from_config(Config({"torch_distributed": given}))
    assert (made.reduce_type, made.sharded, made.wrapper) == ("grad", False, {"find_unused_parameters": True})
    assert DistributedOptions.from_config(Config({})).reduce_type == "grad_explicit"


@pytest.mark.skipif("__import__('torch').cuda.device_count() > 7")
def test_a_gpu_that_is_missing():
    with pytest.raises(ConfigError, match="for local rank 7; start fewer processes on this machine"):
        own_device(Config({"device": "gpu"}), environment(7, 8, 1))


def test_a_backend_that_needs_a_gpu():
    device = own_device(Config({"device": "cpu"}), environment(0, 2, 1))
    with pytest.raises(ConfigError, match='must be "gloo" on CPUs, but is "nccl" instead'):
        backend_for(device, DistributedOptions(backend="nccl"))


def test_a_port_that_is_taken(monkeypatch):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        for name, value in environment(0, 2, other.getsockname()[1]).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match=r"^port \d+ is used by another program; set MASTER_PORT"):
            with joined_world(Config({"device": "cpu"}), DistributedOptions()):
                raise AssertionError("there is no other process")


def test_a_rank_0_that_does_not_come(monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
    for name, value in environment(1, 2, port).items():
        monkeypatch.setenv(name, value)
    options = DistributedOptions(timeout=timedelta(seconds=1))
    with pytest.raises(ConfigError, match=f"cannot reach rank 0 at 127.0.0.1:{port} within 0:00:01"):
        with joined_world(Config({"device": "cpu"}), options):
            raise AssertionError("there is no other process")
