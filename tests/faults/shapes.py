"""The runs that the faults are tried on, as text of their configs: each in an empty folder, with paths from there."""

LAYERS = """
from pathlib import Path
from tests.engine.helpers import dataset, network, options

made = options(Path("."), num_epochs=3)
"""
TORCH = """
from pathlib import Path
from tests.engine.torch_models import options

made = options(Path("."), num_epochs=3)
"""
END = """
made["model"] = "out/model"
if "learning_rate_file" in made:
    made["learning_rate_file"] = "out/rates"
globals().update(made)
del made, options
log_verbosity = 4
log = ["./log"]
"""

SHAPES = {
    "newbob with a learning-rate file": LAYERS,
    "newbob without a learning-rate file": LAYERS + """
del made["learning_rate_file"]
made["newbob_relative_error_threshold"] = -0.5
""",
    "torch model, accumulation, scheduler": TORCH + """
made["accum_grad_multiple_step"] = 2
made["learning_rate_control"] = "constant"
made["lr_scheduler"] = {"class": "exponentiallr", "gamma": 0.9}
""",
    "both checkpoint formats": LAYERS + """
made["checkpoint_format"] = "both"
""",
    "clean-up of old models, averages": LAYERS + """
made["num_epochs"] = 4
made["cleanup_old_models"] = {"keep_last_n": 1, "keep_best_n": 1, "keep": [2]}
made["weight_averaging"] = {"kind": "ema"}
""",
    "parts of epochs, chunks, dropout": LAYERS + """
made["train"] = dataset(14, 1, seq_ordering="laplace:.5", partition_epoch=2)
made["chunking"] = "4:2"
made["network"] = network(dropout=0.4)
""",
}  # fmt: skip
PROCESSES = {
    "several processes read": LAYERS + """
inner = {"class": "Task12AXDataset", "num_seqs": 20, "seq_ordering": "random"}
made["train"] = {"class": "MultiProcDataset", "dataset": inner, "num_workers": 2, "buffer_size": 2}
made["dev"] = {"class": "Task12AXDataset", "num_seqs": 5, "fixed_random_seed": 1}
made["extern_data"] = {"data": {"dim": 9}, "classes": {"dim": 2, "sparse": True}}
made["num_epochs"] = 2
""",
}  # fmt: skip


def config_text(name: str) -> str:
    """The config of a run."""
    return "#!rnn.py\n" + {**SHAPES, **PROCESSES}[name] + END
