"""`batch_norm`: statistics, running values, their options by behaviour version; as a layer and as an option."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.nets import batch, network, randomised

EXTERN = {"data": {"dim": 4}}
LENGTHS = {"data": [5, 3, 4]}
EPSILON = 1e-3


def made(behavior, **options):
    layers = {"output": {"class": "batch_norm", "from": "data", **options}}
    return randomised(network(layers, EXTERN, behavior_version=behavior))


def run(net, train=True):
    net.train(train)
    data, lengths = batch(EXTERN, LENGTHS, padding="garbage")
    return data["data"], net(data, lengths)["output"].data


def params(net):
    return {n.rpartition("_")[2]: p.detach().clone().reshape(-1) for n, p in net.params.items()}


def statistics(x, masked):
    rows = torch.cat([row[:n] for row, n in zip(x, LENGTHS["data"], strict=True)]) if masked else x.reshape(-1, 4)
    return rows.mean(0), rows.var(0, correction=0), len(rows)


def normalised(x, mean, variance, p):
    return (x - mean) / (variance + EPSILON).sqrt() * p["gamma"] + p["beta"]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("train", [False, True])
def test_before_version_12_evaluation_moves_the_running_values_and_uses_them_at_once(train):
    net = made(0)
    old = params(net)
    x, found = run(net, train)
    mean, variance, _ = statistics(x, masked=True)
    moved = {"mean": 0.01 * old["mean"] + 0.99 * mean, "variance": 0.01 * old["variance"] + 0.99 * variance}
    close(found, normalised(x, *((mean, variance) if train else (moved["mean"], moved["variance"])), old))
    close(params(net)["mean"], moved["mean"])
    close(params(net)["variance"], moved["variance"])


@pytest.mark.parametrize("masked", [False, True])
def test_from_version_12_on_only_training_moves_the_running_values(masked):
    net = made(12, masked_time=masked)
    old = params(net)
    x, found = run(net, train=False)
    close(found, normalised(x, old["mean"], old["variance"], old))
    assert all(torch.equal(v, params(net)[k]) for k, v in old.items())
    x, found = run(net, train=True)
    mean, variance, count = statistics(x, masked)
    close(found, normalised(x, mean, variance, old))
    close(params(net)["mean"], 0.9 * old["mean"] + 0.1 * mean)
    unbiased = variance if masked else variance * count / (count - 1)
    close(params(net)["variance"], 0.9 * old["variance"] + 0.1 * unbiased)


@pytest.mark.parametrize("delay", [False, True])
def test_a_share_of_the_running_values_before_or_after_their_update(delay):
    net = made(12, masked_time=True, use_sample=0.25, delay_sample_update=delay, momentum=0.5)
    old = params(net)
    x, found = run(net)
    mean, variance, _ = statistics(x, masked=True)
    running = {"mean": mean, "variance": variance}
    running = {k: old[k] if delay else 0.5 * old[k] + 0.5 * v for k, v in running.items()}
    mean, variance = 0.75 * mean + 0.25 * running["mean"], 0.75 * variance + 0.25 * running["variance"]
    close(found, normalised(x, mean, variance, old))


def test_statistics_of_the_batch_in_evaluation_by_force():
    net = made(12, masked_time=True, force_sample=True)
    x, found = run(net, train=False)
    close(found, normalised(x, *statistics(x, masked=True)[:2], params(net)))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (
            {"param_version": 0},
            ["output_output_output_beta", "output_output_output_gamma", "output_output_output_mean"],
        ),
        ({"param_version": 1}, ["beta", "gamma", "mean"]),
        ({"param_version": 2, "use_shift": False}, ["v2_gamma", "v2_mean", "v2_variance"]),
    ],
)
def test_names_by_version(options, names):
    found = sorted(n.removeprefix("output/batch_norm/") for n in made(12, masked_time=True, **options).params)
    assert found[:3] == names


def test_running_values_are_not_trained():
    net = made(12, masked_time=True)
    assert {n.rpartition("_")[2] for n, p in net.params.items() if not p.requires_grad} == {"mean", "variance"}


def test_as_an_option_it_acts_on_the_output_and_a_fused_loss_does_not_see_it():
    layers = {"output": {"class": "softmax", "n_out": 4, "from": "data", "target": "classes", "loss": "ce"}}
    extern = {**EXTERN, "classes": {"dim": 4, "sparse": True}}
    plain = randomised(network(layers, extern))
    layers["output"]["batch_norm"] = {"masked_time": True, "momentum": 0.5}
    net = randomised(network(layers, extern))
    for p in ("W", "b"):
        net.params[f"output/{p}"].data.copy_(plain.params[f"output/{p}"])
    data, lengths = batch(extern, {**LENGTHS, "classes": LENGTHS["data"]})
    found, expected = net.train()(data, lengths), plain.train()(data, lengths)
    close(found.losses["output"].sum, expected.losses["output"].sum)
    mean, variance, _ = statistics(expected["output"].data, masked=True)
    p = {n.rpartition("_")[2]: v.reshape(-1) for n, v in net.params.items() if "batch_norm" in n}
    close(found["output"].data, normalised(expected["output"].data, mean, variance, p))


@pytest.mark.parametrize(
    ("layer", "version", "text"),
    [
        ({"class": "batch_norm"}, 12, "`masked_time` of `batch_norm` must be given"),
        ({"class": "batch_norm", "momentun": 0.1}, 0, 'did you mean "momentum"'),
        ({"class": "batch_norm", "param_version": 3}, 0, "`param_version` must be 0, 1 or 2"),
        ({"class": "copy", "batch_norm": {"momentun": 0.1}}, 0, 'did you mean "momentum"'),
        ({"class": "copy", "batch_norm": 0.5}, 0, "must be a bool, a dict or None"),
        ({"class": "reduce", "mode": "mean", "axis": "T", "batch_norm": True}, 0, "needs a batch and a time axis"),
    ],
)
def test_wrong_options(layer, version, text):
    with pytest.raises(ConfigError, match=text) as caught:
        network({"output": {"from": "data", **layer}}, EXTERN, behavior_version=version)
    assert caught.value.path.startswith('network["output"]')
