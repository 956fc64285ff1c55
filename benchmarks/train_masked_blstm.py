"""Training a 3 x 256 BLSTM with input masked at random, as published configs do it: by a function written for `tf`.

    python benchmarks/train_masked_blstm.py [--rounds 5] [--threads N]

The network of train_blstm.py below an `eval` layer that calls the function; the hand-written torch model masks with the
same random numbers. Prints median seconds an epoch of both and the ratio; the goal is at most 1.10.
"""

import torch
import train_blstm
from common import Batch, Ours, arguments, compare, make_batches, torch_step

from returnn_lite.compat.config_imports import config_imports

TIME, BANDS = {"most": 4, "longest": 20}, {"most": 3, "longest": 8}
TF_FUNCTIONS = """
def mask(x, seqs, along, most, longest):
    import tensorflow as tf
    from TFUtil import where_bc
    batch, size = tf.shape(x)[seqs], tf.shape(x)[along]
    count = tf.random_uniform((batch,), minval=1, maxval=most + 1, dtype=tf.int32)
    luck = -tf.log(-tf.log(tf.random_uniform((batch, size), 0, 1)))
    _, starts = tf.nn.top_k(luck, tf.reduce_max(count))

    def one_more(i, x):
        first = starts[:, i]
        width = tf.random_uniform((batch,), minval=1, maxval=longest + 1, dtype=tf.int32)
        end = tf.minimum(first + width, size)
        at = tf.expand_dims(tf.range(0, size), 0)
        hit = tf.logical_and(tf.greater_equal(at, tf.expand_dims(first, 1)), tf.less(at, tf.expand_dims(end, 1)))
        hit = tf.transpose(hit) if seqs > along else hit
        hit = tf.reshape(hit, [tf.shape(x)[a] if a in (seqs, along) else 1 for a in range(x.get_shape().ndims)])
        return i + 1, tf.where(tf.less(i, count), where_bc(hit, 0.0, x), x)

    return tf.while_loop(lambda i, _: tf.less(i, tf.reduce_max(count)), one_more, (0, x))[1]


def transform(data, network):
    x, seqs = data.placeholder, data.batch_dim_axis
    def masked():
        return mask(mask(x, seqs, data.time_dim_axis, **TIME), seqs, data.feature_dim_axis, **BANDS)
    return network.cond_on_train(masked, lambda: x)
"""
CALL = "self.network.get_config().typed_value('transform')(source(0, as_data=True), network=self.network)"


def config() -> dict:
    """That of train_blstm.py, with the functions and the layer that calls them."""
    options = train_blstm.config()
    functions = {"TIME": TIME, "BANDS": BANDS}
    exec(TF_FUNCTIONS, functions)  # as a config is executed
    masked = {"class": "eval", "from": "data", "eval": CALL}
    network = {**options["network"], "masked": masked}
    for name in ("lstm1_fw", "lstm1_bw"):
        network[name] = {**network[name], "from": "masked"}
    return {**options, "network": network, "transform": functions["transform"]}


class HandWritten(train_blstm.HandWritten):
    """The same with random numbers of `seed`."""

    def __init__(self, weights: dict[str, torch.Tensor], seed: int) -> None:
        super().__init__(weights)
        self.generator = torch.Generator().manual_seed(seed)

    def loss(self, batch: Batch) -> torch.Tensor:
        """On the masked frames."""
        x = torch.from_numpy(batch.data["data"])
        for axis, how in ((1, TIME), (2, BANDS)):
            hit = self.hits(x.shape[0], x.shape[axis], **how)
            x = x.masked_fill(hit.unsqueeze(3 - axis), 0.0)
        return super().loss(Batch({**batch.data, "data": x.numpy()}, batch.lengths))

    def hits(self, batch: int, size: int, most: int, longest: int) -> torch.Tensor:
        """Where the stripes are, bool (B, size)."""
        count = self.draw(batch, most)
        luck = torch.rand((batch, size), generator=self.generator)
        starts = luck.topk(int(count.max())).indices
        widths = torch.stack([self.draw(batch, longest) for _ in range(starts.shape[1])], 1)
        widths = widths.masked_fill(torch.arange(starts.shape[1]) >= count.unsqueeze(1), 0)
        at = torch.arange(size)
        ends = (starts + widths).unsqueeze(2)
        return ((at >= starts.unsqueeze(2)) & (at < ends)).any(1)

    def draw(self, batch: int, most: int) -> torch.Tensor:
        """Whole numbers from 1 to `most`, (B,)."""
        return torch.randint(0, 2**62, (batch,), generator=self.generator) % most + 1


def main() -> None:
    """Measures and prints."""
    args = arguments("Training speed of a BLSTM with masked input.", rounds=5)
    with config_imports():
        ours = Ours(config())
        theirs = HandWritten(ours.weights(), ours.net.context.generator.initial_seed())
        batches = make_batches(train_blstm.sequences(60), train_blstm.BATCH_SIZE)
        step = torch_step(theirs, theirs.loss, train_blstm.RATE)
        compare("masked BLSTM", ours.step, step, batches, rounds=args.rounds, goal=1.10)


if __name__ == "__main__":
    main()
