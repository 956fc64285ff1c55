"""Networks of layers whose parameters are in parts, one in each process: who has what, and when."""

import json
import os
import subprocess
import sys

import pytest

from returnn_lite.engine.distributed.layer_units import refuse
from returnn_lite.errors import ConfigError
from returnn_lite.network.gathering import SHARE, units
from tests.engine.several import ROOT, environment, free_port
from tests.engine.split_nets import KEYS, blocks, loop
from tests.nets import network


@pytest.fixture(scope="module")
def seen():
    """What each of two processes sees."""
    port, words = free_port(), [sys.executable, "-m", "tests.engine.split_nets"]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            words, cwd=ROOT, env={**common, **environment(rank, 2, port)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        ends = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], ends[0][1][-3000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in ends]


@pytest.mark.parametrize("way", ["runs", "blocks", "recomputed", "kept", "noisy", "loop"])
def test_each_process_has_its_part(seen, way):
    """Of parameters and gradients."""
    whole = seen[0][way]["whole"]
    for key in ("own", "gradients"):
        assert sum(found[way][key] for found in seen) == whole
        assert all(found[way][key] < 0.51 * whole for found in seen)


@pytest.mark.parametrize("way", ["blocks", "recomputed"])
def test_one_block_is_whole_at_a_time(seen, way):
    """In both passes; between them, and behind the second one, nothing is."""
    for found in seen:
        numbers = found[way]
        assert numbers["forth"] == numbers["back"] == numbers["block"] < numbers["whole"] / 11
        assert numbers["kept"] == numbers["left"] == 0


def test_runs_of_layers(seen):
    """By default, a sixteenth of the numbers at most."""
    for found in seen:
        numbers = found["runs"]
        assert 0 < numbers["forth"] == numbers["back"] <= numbers["whole"] / SHARE
        assert numbers["kept"] == numbers["left"] == 0


def test_runs_of_layers_in_a_loop(seen):
    """Before and after its ticks, too; but for what layers begin with, which is whole all the time."""
    for found in seen:
        numbers, starts = found["loop"], 2 * 8
        assert 0 < max(numbers["forth"], numbers["back"]) <= numbers["whole"] / SHARE + starts
        assert numbers["kept"] <= starts and numbers["left"] == 0


def test_kept_until_the_backward_pass(seen):
    """`reshard_after_forward` False: all that gradients depend on, such as no biases."""
    for found in seen:
        numbers = found["kept"]
        assert 0.9 * numbers["whole"] < numbers["kept"] <= numbers["forth"] <= numbers["whole"]
        assert numbers["back"] == numbers["left"] == 0


@pytest.mark.parametrize("case", ["same ways", "other ways", "blocks differ", "loops differ", "noise"])
def test_means_of_gradients(seen, case):
    """Of different batches; also where these decide which layers run, so that one process has no gradients of some; of
    parameters with noise."""
    assert all(found[case] < 1e-6 for found in seen)


def test_all_steps_and_parameters_are_in_units():
    """Each step in one of them, in order, those in a loop, too; its ticks are one step."""
    made = loop()
    made["loop"]["from"] = "block11"
    net = network({**blocks(), **made}, KEYS)
    found, left = units(net.program.parts, net.program.layers, net.params)
    nodes = [node for unit in found for node in unit.nodes]
    assert [node for node in nodes if node in net.program.nodes] == [node for node, _ in net.program.steps]
    assert len(set(nodes)) == len(nodes)
    assert {name for unit in (*found, left) for name in unit.places} == set(net.params)
    assert all(name.rpartition("/")[2].startswith("init") for name in left.places)
    (ticks,) = (unit for unit in found if "loop/rec/s/W" in unit.places)
    assert set(net.layers["loop"].program.inside) <= set(ticks.nodes)


def test_what_needs_whole_parameters_is_refused():
    with pytest.raises(ConfigError, match=r"^torch_compile: cannot be used together with torch_distributed"):
        refuse(network(blocks(), KEYS, torch_compile=True))
    linear = {"class": "linear", "n_out": 5, "activation": None, "from": "data"}
    twice = {"reuse_layer": "first", "custom": lambda reuse_layer, **_: 2 * reuse_layer.params["W"]}
    shared = {"reuse_params": {"map": {"W": twice, "b": None}}}
    made = {"first": linear, "second": {**linear, **shared}, "output": {"class": "combine", "kind": "add"}}
    made["output"]["from"] = ["first", "second"]
    with pytest.raises(ConfigError, match=r'\["second"\]: `reuse_params` with `custom` cannot be used'):
        refuse(network(made, KEYS))
