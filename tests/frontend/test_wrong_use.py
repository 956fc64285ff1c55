"""Wrong calls: one line, with the config's line, the axes of the tensors, and what was expected."""

import re
from types import ModuleType

import numpy as np
import pytest

from returnn_lite import frontend as rf
from returnn_lite.errors import ConfigError
from tests.frontend.helpers import random, sized

B, F, G, N = rf.Dim(3, name="B"), rf.Dim(4, name="F"), rf.Dim(5, name="G"), rf.Dim(None, name="unknown")
T = sized([3, 0, 2], B, "T")
X = r"Tensor\{'const', \['B'\(3\),'T'\['B'\(3\)\],F\|'F'\(4\)\]\}"

CALLS = [
    ("rf.log_softmax(x, axis=unknown)", X + r".* has no axis Dim\{'unknown'\[\?\]\}"),
    ("rf.matmul(x, x, reduce=G)", r"'G'"),
    ("rf.gather(x, indices='a', axis=T)", X + ".*`indices` must be an int or a Tensor, but is 'a'"),
    ("rf.gather(x, indices=9, axis=F)", "position 9 is not on axis"),
    ("rf.pad(x, axes=[T], padding=[1])", X + r".*`padding` must be a pair \(left, right\) for each"),
    ("rf.merge_dims(x, dims=T)", "`dims` of merge_dims must be a list of axes"),
    ("rf.masked_scatter(x, mask=c > 0, dims=[B, T], in_dim=G)", X + r".* has no axis Dim\{'G'\(5\)\}"),
    ("x.copy_transpose([[B], T, F])", r"`dims` of copy_transpose must be axes, but \[Dim\{'B'\(3\)\}\] is not"),
    ("rf.scan(spatial_dim=T, initial=None, xs=x, ys=None, body=3)", "the `body` of scan must be a function, but is 3"),
    ("setattr(rf.Parameter([F]), 'initial', 'a')", r"`initial` of a parameter with the axes \['F'\(4\)\] must be"),
    ("setattr(rf.Parameter([F]), 'initial', np.zeros(3))", "`initial` of a parameter with the axes .* must be"),
    ("rf.clip_by_value(x, 'a', 1)", "the limits must be numbers or tensors, but one is 'a'"),
    ("rf.window(x, spatial_dim=T, window_dim=3)", "`window_dim` must be an axis, but is 3"),
    ("rf.repeat(x, in_spatial_dim=T, repeats=0.5)", "`repeats` must be ints, but is 0.5"),
    ("rf.search_sorted(x, x, axis=G)", "search_sorted: " + X + ".* has no axis"),
    ("rf.label_smoothing(x, 0.1, axis=G)", "label_smoothing: " + X + ".* has no axis"),
    (
        "rf.ctc_loss(logits=x, targets=x, input_spatial_dim=T, targets_spatial_dim=T, blank_index=3)",
        "the targets must be classes, but are " + X,
    ),
    ("rf.Tensor('a', [B], 'int32', sparse_dim=3)", "`sparse_dim` of tensor 'a' must be an axis, but is 3"),
    ("rf.audio.specaugmnt", 'rf.audio.specaugmnt does not exist; did you mean "specaugment"'),
    ("rf.init.Glorrot", 'did you mean "Glorot"'),
    ("rf.nested.gather_nest", 'did you mean "gather_nested"'),
    ("rf.hooks.setup_post_hook", 'did you mean "setup_post_hook_on_method"'),
    ("rf.softmax(x, axis='F')", r"an axis must be a Dim, one of \['B'\(3\), .*\], but is 'F' instead"),
    ("rf.reduce_sum(x, axis=-1)", r"an axis must be a Dim, .*, but is -1 instead"),
    ("rf.Linear(F, G)(x.raw_tensor)", r"Linear needs a Tensor, but got a torch tensor of shape .* use rf.convert_to_"),
    ("rf.reduce_max(np.zeros(3), axis=F)", r"reduce_max needs a Tensor, but got a numpy array of shape \(3,\)"),
    ("rf.relu(rf.slice(x, axis=F, end=1))", r"relu: .* but is a tuple \(Tensor, Dim\); take what is needed of it"),
    ("rf.matmul(x, 'a', reduce=F)", "matmul needs two Tensors, but got a str"),
    ("rf.reduce_mean(c, axis=T)", "reduce_mean of .* must be of floats; use rf.cast"),
    ("rf.Parameter(6)", "the axes of a Parameter must be a list of Dims, but are 6 instead"),
    ("rf.zeros(3)", "`dims` of full must be a list of axes, but is 3 instead"),
    ("rf.Dim('F')", "`dimension` must be an int, an int tensor or None, but is 'F' instead; a name is given as name="),
    ("range(T)", r"axis Dim\{'T'.*\} is not a number; .* get_dim_value\(\)"),
    ("int(F)", r"axis Dim\{'F'\(4\)\} is not a number"),
    ("x.view(3)", "a Tensor has no attribute 'view'; torch's is that of its `raw_tensor`"),
    ("x.feature_dims", "a Tensor has no attribute 'feature_dims'; did you mean \"feature_dim\""),
    ("rf.Tensor('x', dim=[B, T])", r"`dim` of tensor 'x' must be a number, but is \[.*\] instead; axes are given as"),
    (
        "rf.Embedding(F, G)(rf.set_sparse_dim(c + 7, F))",
        "Embedding of .*: the classes must be from 0 to 3, but are from 7",
    ),
    (
        "rf.LSTM(F, G).default_initial_state(batch_dims=B)",
        "`dims` of default_initial_state must be a list of axes, but",
    ),
    ("rf.top_k(x, axis=F, k=2.5)", "`k` must be a number of entries, but is 2.5 instead"),
    ("rf.get_run_ctx().mark_as_loss('ce', x)", r"the name of a loss must be a text, but is Tensor\{"),
    ("x.mark_as_loss('ce', scale='2')", "`scale` of loss 'ce' must be a number, but is '2' instead"),
    ("rf.TensorDict({'classes': c}).classes", r"a TensorDict has no attribute 'classes'; its tensor is \['classes'\]"),
    ("rf.TensorDict({'x': c}).copy_templat()", r"has no attribute 'copy_templat'; did you mean \"copy_template\""),
    ("rf.Modul", 'rf.Modul does not exist; did you mean "Module"'),
]


@pytest.mark.parametrize("call, message", CALLS, ids=[call for call, _ in CALLS])
def test_one_line(call, message):
    x = random([B, T, F], feature_dim=F)
    names = {"rf": rf, "np": np, "x": x.copy("const"), "c": rf.zeros([B, T], dtype="int32"), "unknown": N}
    with pytest.raises(ConfigError, match=message) as caught:
        exec(compile(call, "my.config", "exec"), {**names, "B": B, "T": T, "F": F, "G": G})  # noqa: S102
    assert re.match(r"my\.config:1: .+\Z", str(caught.value))


def test_probing_for_a_name_finds_none():
    assert all(isinstance(module, ModuleType) for module in (rf.audio, rf.init, rf.nested, rf.hooks))
    assert not hasattr(rf.audio, "foo") and not hasattr(rf.init, "__wrapped__")


def test_a_loss_of_another_kind():
    rf.init_train_step_run_ctx()
    with pytest.raises(ConfigError, match="must be a Tensor, a torch tensor or a number, but is 'ce' instead"):
        rf.get_run_ctx().mark_as_loss("ce", "ce")
