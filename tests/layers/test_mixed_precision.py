"""All layer classes under `torch_amp`: they run on half precision, and those that need float32 compute in it."""

import pytest
import torch

from returnn_lite.ops.precision import lowered
from tests.layers import test_all_layers as suite
from tests.layers.test_all_layers import CASES, build, ids, run
from tests.nets import batch, network, randomised

BFLOAT16 = (torch.device("cpu"), torch.bfloat16)
# Their numbers are not near those of other inputs, however close these are.
JUMPING = {"stft", "multichannel_stft_layer", "alternating_real_to_complex", "search_sorted"}
JUMPING |= {"multichannel_multiresolution_stft_layer", "ctc_decode"}


@pytest.mark.parametrize("case", CASES, ids=ids())
def test_half_precision_gives_nearly_the_numbers_of_float32(case, monkeypatch):
    if case.word in JUMPING:
        pytest.skip("its numbers jump")
    net = build(case)
    exact = run(case, net)[0].data.detach()

    def halved(*args, **options):
        data, lengths = batch(*args, **options)
        return {key: x.bfloat16() if x.dtype == torch.float32 else x for key, x in data.items()}, lengths

    monkeypatch.setattr(suite, "batch", halved)
    with lowered(*BFLOAT16):
        found = run(case, net)[0].data.detach()
    assert found.shape == exact.shape
    if exact.dtype.is_floating_point:
        size = float(exact.abs().nan_to_num(posinf=0.0).max()) if exact.numel() else 0.0
        torch.testing.assert_close(found.double(), exact.double(), rtol=0.1, atol=0.05 * max(size, 1.0), equal_nan=True)
    else:
        assert torch.equal(found, exact)


NET = {
    "hidden": {"class": "linear", "n_out": 6, "activation": "tanh", "from": "data"},
    "norm": {"class": "layer_norm", "from": "hidden"},
    "sum": {"class": "cumsum", "from": "hidden"},
    "weights": {"class": "softmax_over_spatial", "from": "hidden"},
    "both": {"class": "combine", "kind": "add", "from": ["norm", "sum"]},
    "output": {"class": "softmax", "from": "both", "loss": "ce", "target": "classes"},
}


def test_what_computes_in_what():
    net = randomised(network({**NET, "look": {"class": "copy", "from": "weights", "is_output_layer": True}}))
    data, lengths = batch({"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}, {"data": [4, 2, 3]})
    lengths["classes"] = lengths["data"]
    exact = net(data, lengths)
    with lowered(*BFLOAT16):
        out = net(data, lengths)
    kinds = {name: out.values[out.nodes[name]].data.dtype for name in NET}
    assert kinds.pop("hidden") == torch.bfloat16
    assert set(kinds.values()) == {torch.float32}
    assert out.objective.dtype == torch.float32
    assert out.objective.item() == pytest.approx(exact.objective.item(), rel=0.02)
    assert out["hidden"].data.dtype == torch.float32  # whoever asks for outputs gets what numpy knows
