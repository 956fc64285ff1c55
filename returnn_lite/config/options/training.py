"""Batches, epochs, and what ends them."""

from returnn_lite.config.options.option import NONE, Count, Group, Number, Part, option

TRAINING = Group(
    "Epochs and batches",
    "Sizes are in frames, padding included; a dict sets them by data key.",
    (
        option("num_epochs", Count, "5", "The last epoch; 0: training without end."),
        option("start_epoch", 'int or "auto"', '"auto"', "The first epoch; default: the one after the last model."),
        option("start_batch", '"auto" or 0', '"auto"', "No effect: epochs start at their first batch."),
        option(
            "batch_size",
            "int, dict or function",
            "1",
            "Largest product of the longest length and the number of sequences.",
        ),
        option("batch_size_train", "int or dict", NONE, "The same, for training only."),
        option("batch_size_dev", "int or dict", NONE, "The same, for evaluation and other tasks."),
        option("packed_batch_size", "int or dict", NONE, "Largest sum of lengths (layers: replaces `batch_size`)."),
        option("max_seqs", "int or function", "-1", "Most sequences in a batch; -1: no limit."),
        option("max_seq_length", "number or dict", "0", "Longer sequences are skipped (training, `dev`); 0: no limit."),
        option("min_seq_length", "number or dict", "0", "Shorter sequences are skipped."),
        option("max_pad_size", "int or dict", NONE, "Most frames of padding in a batch."),
        option("inc_seq_length", Number, "0.0", "Growth of `max_seq_length` per epoch."),
        option("seq_drop", Part, "0.0", "Probability of skipping a training sequence."),
        option("seq_drop_freq", Count, "10", "No effect; accepted for old configs."),
        option("torch_batching", "dict or function", NONE, "Batches by buckets or a function ([page](training.md))."),
        option("online_shuffle_batches", "int or dict", NONE, "Shuffles batches within a buffer of this size."),
        option("shuffle_batches", bool, "False", "Shuffles the batches of an epoch."),
        option("allow_skipping_seqs_in_forward", "bool", "False", "Length limits may skip sequences in forwarding."),
        option("on_size_limit", "str", '"ignore"', '"chunk": `dev` and `eval` are split into chunks of `batch_size`.'),
        option("calculate_exp_loss", bool, "False", "Also reports the exp of losses: perplexities."),
        option("stop_on_nonfinite_train_score", bool, "True", "Stops with an error if a score is NaN or infinite."),
        option("use_last_best_model", "bool or dict", "False", "Returns to a better epoch when scores get worse."),
        option("early_stopping", "dict", NONE, "Stops when scores stall: `patience` (epochs), `measure`, …"),
        option("max_train_time", "number or str", NONE, 'Stops cleanly before this time: "23:30:00" or seconds.'),
        option("epoch_start", "function", NONE, "Called before each training and evaluation."),
        option("epoch_end", "function", NONE, "Called after each."),
    ),
)

DATA = Group(
    "Data",
    "See [datasets.md](datasets.md). The last ones are defaults for the options of `train`, `dev` and `eval`.",
    (
        option("train", "dataset", NONE, "The training data."),
        option("dev", "dataset", NONE, "Evaluated after each epoch; drives the learning rate."),
        option("eval", "dataset", NONE, "A further evaluation set; the default data of tasks like `forward`."),
        option("eval_datasets", "dict", NONE, "Further sets by name."),
        option("num_workers", Count, "1", "0: batches are made on demand, 1: by a thread, more: by processes."),
        option("torch_dataloader_opts", "dict", NONE, "`num_workers`, `prefetch_factor`, `persistent_workers`."),
        option("batching", "str", NONE, "Default of `seq_ordering`."),
        option("window", "int", "0", "Default of the dataset option."),
        option("context_window", "int or dict", NONE, "Default of the dataset option."),
        option(
            "chunking",
            "str, int, tuple, dict or function",
            '"0"',
            'Splits training sequences into chunks: "size:step", by key.',
        ),
        option("chunking_variance", Part, "0", "Largest share by which chunks are randomly shortened."),
        option("min_chunk_size", "int or dict", "0", "Remainders of at most this many frames are dropped."),
        option("chunk_eval", bool, "False", "`dev` and `eval` are split as `train` is."),
        option("shuffle_frames_of_nseqs", "int", "0", "Default of the dataset option."),
    ),
)
