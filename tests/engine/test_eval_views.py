"""What functions of a config see of sources, layer and network; `out_type` as a function."""

from tests.engine.helpers import rnn

CONFIG = """#!rnn.py
import numpy
from returnn.tf.util.data import DimensionTag, Data, FeatureDim, batch_dim
task, device = "train", "cpu"
rng = numpy.random.RandomState(1)
seqs = [{"data": rng.randn(4 + i % 2, 3).astype("float32"), "classes": rng.randint(0, 2, (2,))} for i in range(6)]
train = {"class": "StaticDataset", "data": seqs, "output_dim": {"data": (3, 2), "classes": (2, 1)}}
time = DimensionTag(kind=DimensionTag.Types.Spatial, description="time")
extern_data = {"data": {"dim_tags": [batch_dim, time, FeatureDim("f", 3)]}, "classes": {"dim": 2, "sparse": True}}

def look(self, source, **_):
    import tensorflow as tf
    from TFUtil import where_bc
    x = source(0, as_data=True)
    assert (x.batch_dim_axis, x.time_dim_axis, x.feature_dim_axis, x.dim, x.batch_ndim) == (0, 1, 2, 3, 3)
    assert x.shape == (None, 3) and x.get_time_dim_tag() == time and x.is_batch_major and not x.sparse
    assert x.get_dynamic_axes() == [1] and x.get_static_axes() == [2] and x.get_spatial_axes() == [0]
    assert x.get_batch_dim() == x.placeholder.get_shape().as_list()[0] and x.time_dimension() == x.placeholder.shape[1]
    lengths = x.get_sequence_lengths()
    assert int(tf.reduce_sum(x.get_time_dim_tag().dyn_size)) == int(tf.reduce_sum(lengths))
    flat = x.get_placeholder_time_flattened()
    assert int(tf.reduce_sum(lengths)) == flat.shape[0] and x.get_placeholder_flattened().shape == flat.shape
    assert x.get_placeholder_as_time_major().shape[:2] == (x.placeholder.shape[1], x.placeholder.shape[0])
    assert x.copy_as_time_major().get_sequence_mask().shape[1] == x.get_sequence_mask().shape[0]
    assert x.get_sequence_mask_broadcast().get_shape().ndims == 3
    net = self.network
    assert net.get_config().typed_value("look") is look and net.get_root_network().parent_net is None
    assert net.extern_data.get_default_input_data().dim == 3 and net.get_data_batch_dim() == x.get_batch_dim()
    assert net.train_flag and not net.search_flag and net.global_train_step >= 0
    kept = where_bc(x.get_sequence_mask_broadcast(), x.placeholder, 0.0)
    total = tf.reduce_sum(kept, axis=x.time_dim_axis)
    return tf.concat([total, tf.cast(tf.expand_dims(lengths, -1), tf.float32)], axis=-1)

def look_type(sources, **_):
    assert sources[0].output.have_time_axis() and sources[0].output.copy_as_time_major().is_time_major
    return Data(name="look", shape=(4,), dtype="float32")

def double(source, **_):
    return source(0) * 2.0

def double_type(sources, **_):
    return Data(name="double", dim=3, size_placeholder={0: sources[0].output.get_sequence_lengths()})

network = {
    "seen": {"class": "eval", "from": "data", "eval": look, "out_type": look_type},
    "double": {"class": "eval", "from": "data", "eval": double, "out_type": double_type},
    "mean": {"class": "reduce", "mode": "mean", "axes": "T", "from": "double"},
    "output": {"class": "linear", "n_out": 1, "from": ["seen", "mean"], "loss": "as_is"},
}
batch_size, num_epochs = 100, 1
"""


def test_views(tmp_path):
    (tmp_path / "my.config").write_text(CONFIG)
    done = rnn("my.config", folder=tmp_path)
    assert done.returncode == 0, done.stderr


LOOP = """#!rnn.py
import atexit, numpy
task, device = "train", "cpu"
seqs = [{"data": numpy.ones((n, 1), "float32")} for n in (3, 2)]
train = {"class": "StaticDataset", "data": seqs, "output_dim": {"data": (1, 2)}}
extern_data = {"data": {"dim": 1}}
seen = []
atexit.register(lambda: print("ticks", seen))

def count(source, self, **_):
    seen.append(int(self.network.get_rec_step_index()))
    assert self.network.have_rec_step_info()
    return source(0) + source(1)

inner = {"output": {"class": "eval", "from": ["data:source", "prev:output"], "eval": count}}
network = {
    "loop": {"class": "rec", "from": "data", "unit": inner},
    "output": {"class": "linear", "n_out": 1, "from": "loop", "loss": "as_is"},
}
batch_size, num_epochs = 100, 1
"""


def test_the_tick_of_a_loop(tmp_path):
    (tmp_path / "my.config").write_text(LOOP)
    done = rnn("my.config", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ticks [0, 1, 2]" in done.stdout
    after = """"after": {"class": "eval", "from": "loop", "eval": "source(0) * self.network.get_rec_step_index()"}"""
    outside = LOOP.replace('"from": "loop", "loss"', '"from": "after", "loss"')
    (tmp_path / "my.config").write_text(outside.replace("network = {", f"network = {{{after},"))
    done = rnn("my.config", folder=tmp_path)
    assert done.returncode == 1 and "needs a layer that runs inside of a loop" in done.stderr
