"""The run as a whole: what to do, where, and what is written about it."""

from returnn_lite.config.options.option import NONE, Count, Group, Seed, option

RUN = Group(
    "The run",
    "Task, device and logging.",
    (
        option("task", "str", '"train"', "What to do; `rnn.py --help` lists the tasks."),
        option("backend", "str", NONE, '"torch": names of optimizers are torch\'s; a `get_model` implies it.'),
        option("device", "str", NONE, '"gpu", "cpu" or "cuda:1"; default: a GPU if available.'),
        option("behavior_version", Count, "0", "Version of the defaults; at least 16 for models in torch."),
        option("random_seed", Seed, "42", "Seed of initial parameters, dropout and noise."),
        option("include", "str or list", NONE, "Further config files, loaded at this point."),
        option("startup_callback", "function", NONE, "Called with `config=` before the task."),
        option("need_data", bool, "True", "Whether tasks other than training open the datasets."),
        option("dry_run", bool, "False", "Write no files."),
        option(
            "log", "str or list", "[]", 'Log targets in addition to standard output: a path with a folder ("./log").'
        ),
        option("log_verbosity", "int or list", "3", "1 (scores of epochs) to 5 (every step), one number per target."),
        option("log_format", "str or list", '"default"', '"default", "raw", "timed" or "verbose".'),
        option("log_batch_size", bool, "False", "Step lines show the number of sequences and the longest length."),
        option("log_batch_interval", Count, "1", "Steps between step lines."),
        option("use_tensorboard", bool, "False", "Scalars for TensorBoard, in the folder `runs`."),
        option("tensorboard_opts", "dict", NONE, "Scalars for TensorBoard: `log_every_n_train_steps` (100)."),
        option("tf_log_dir", "str or bool", NONE, "The folder of the TensorBoard files; False: none."),
        option("torch_amp", "str or dict", NONE, 'Mixed precision: "bfloat16" or "float16".'),
        option("default_float_dtype", "str", '"float32"', "With `get_model`: the type of parameters and float data."),
        option(
            "torch_compile",
            "bool or dict",
            "False",
            "Compiles nets of layers ([page](speed.md)); a dict: options of torch.compile.",
        ),
        option("torch_cuda_graph", "bool or int", "False", "Records training steps on a GPU and replays them."),
        option("torch_profile", "bool or dict", "False", "Profiles some steps with torch.profiler, then ends the run."),
        option("torch_log_memory_usage", "bool", "False", "Step lines and epochs report the GPU memory in use."),
        option(
            "PYTORCH_CUDA_ALLOC_CONF", "str", NONE, "Options of torch's GPU memory allocator; set in the environment."
        ),
        option("loggers", "list or dict", NONE, 'Loggers of scalars: "tensorboard", "csv", "wandb", "mlflow".'),
        option("torch_distributed", "dict", NONE, "How several processes train one model ([page](scale.md))."),
        option(
            "float32_matmul_precision", "str", '"highest"', 'Precision of matrix products on a GPU: "high", "medium".'
        ),
    ),
)
