"""Batches, epochs, and what ends them."""

from returnn_lite.config.options.option import NONE, Count, Group, Number, Part, option

TRAINING = Group(
    "Epochs and batches",
    "Sizes are frames, padding included; a dict gives them by data key.",
    (
        option("num_epochs", Count, "5", "The last epoch; 0 for training without end."),
        option("start_epoch", 'int or "auto"', '"auto"', "The first epoch; by default the one after the last model."),
        option("start_batch", '"auto" or 0', '"auto"', "No effect but for 0: epochs begin at their first batch."),
        option("batch_size", "int, dict or function", "1", "Longest sequence times their number, at most."),
        option("batch_size_train", "int or dict", NONE, "The same in training only."),
        option("batch_size_dev", "int or dict", NONE, "The same where nothing is trained."),
        option("packed_batch_size", "int or dict", NONE, "The sum of all lengths, at most, in place of `batch_size`."),
        option("max_seqs", "int or function", "-1", "Sequences of a batch, at most; -1 for any number."),
        option("max_seq_length", "number or dict", "0", "Longer sequences are left out (training, `dev`); 0 for none."),
        option("min_seq_length", "number or dict", "0", "Shorter sequences are left out."),
        option("max_pad_size", "int or dict", NONE, "Frames of padding in a batch, at most."),
        option("inc_seq_length", Number, "0.0", "`max_seq_length` grows by so much each epoch."),
        option("seq_drop", Part, "0.0", "Probability that a training sequence is left out."),
        option("seq_drop_freq", Count, "10", "No effect on the result; of old configs."),
        option("torch_batching", "dict or function", NONE, "Batches by buckets or a function ([page](training.md))."),
        option("online_shuffle_batches", "int or dict", NONE, "Batches in random order within a buffer of so many."),
        option("shuffle_batches", bool, "False", "Batches of an epoch come in random order."),
        option(
            "allow_skipping_seqs_in_forward", "bool", "False", "Length limits may leave sequences out of forwarding."
        ),
        option("on_size_limit", "str", '"ignore"', '"chunk": `dev` and `eval` are cut into chunks of `batch_size`.'),
        option("calculate_exp_loss", bool, "False", "Reports exp of losses, too: perplexities."),
        option("stop_on_nonfinite_train_score", bool, "True", "Ends with an error when a score is NaN or infinite."),
        option("use_last_best_model", "bool or dict", "False", "Goes back to a better epoch when scores get worse."),
        option("early_stopping", "dict", NONE, "Ends where scores stall: `patience` (epochs), `measure`, …"),
        option("max_train_time", "number or str", NONE, 'Ends in good order before this time, "23:30:00" or seconds.'),
        option("epoch_start", "function", NONE, "Called before each training and evaluation."),
        option("epoch_end", "function", NONE, "Called after each."),
    ),
)

DATA = Group(
    "Data",
    "See [datasets.md](datasets.md). The last ones are defaults of the options of `train`, `dev` and `eval`.",
    (
        option("train", "dataset", NONE, "What is trained on."),
        option("dev", "dataset", NONE, "What is evaluated after each epoch, and drives the learning rate."),
        option("eval", "dataset", NONE, "A further set to evaluate; what tasks like `forward` read."),
        option("eval_datasets", "dict", NONE, "Further sets by name."),
        option("num_workers", Count, "1", "0: batches are made when needed, 1: by a thread, more: by processes."),
        option("torch_dataloader_opts", "dict", NONE, "The same as `num_workers`, and `prefetch_factor`."),
        option("batching", "str", NONE, "Default of `seq_ordering`."),
        option("window", "int", "0", "Default of the dataset option."),
        option("context_window", "int or dict", NONE, "Default of the dataset option."),
        option("chunking", "str, int, tuple, dict or function", '"0"', 'Cuts training sequences: "size:step", by key.'),
        option("chunking_variance", Part, "0", "Chunks are shorter at random, by this share at most."),
        option("min_chunk_size", "int or dict", "0", "A rest of so many frames or less is no chunk."),
        option("chunk_eval", bool, "False", "`dev` and `eval` are cut as `train` is."),
        option("shuffle_frames_of_nseqs", "int", "0", "Default of the dataset option."),
    ),
)
