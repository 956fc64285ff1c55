"""The run as a whole: what to do, where, and what is written about it."""

from returnn_lite.config.options.option import NONE, Count, Group, Seed, option

RUN = Group(
    "The run",
    "What to do, on which device, and what is logged.",
    (
        option("task", "str", '"train"', "What to do; `rnn.py --help` lists the tasks."),
        option("backend", "str", NONE, '"torch": names of optimizers are torch\'s; a `get_model` implies it.'),
        option("device", "str", NONE, '"gpu", "cpu" or "cuda:1"; by default a GPU if there is one.'),
        option("behavior_version", Count, "0", "Which defaults count; 16 at least for models in torch."),
        option("random_seed", Seed, "42", "Seed of initial parameters, dropout and noise."),
        option("include", "str or list", NONE, "Further config files, loaded at this point."),
        option("startup_callback", "function", NONE, "Called with `config=` before the task."),
        option("need_data", bool, "True", "Whether tasks that do not train open the datasets."),
        option("dry_run", bool, "False", "Write no files."),
        option("log", "str or list", "[]", 'Log targets beside standard output: a path with a folder ("./log").'),
        option("log_verbosity", "int or list", "3", "1 (scores of epochs) to 5 (every step), one number a target."),
        option("log_format", "str or list", '"default"', '"default", "raw", "timed" or "verbose".'),
        option("log_batch_size", bool, "False", "Step lines have the number and the longest of the sequences."),
        option("log_batch_interval", Count, "1", "A step line only for every so many steps."),
        option("tensorboard_opts", "dict", NONE, "Scalars for TensorBoard: `log_every_n_train_steps` (100)."),
        option("tf_log_dir", "str or bool", NONE, "The folder of the TensorBoard files; False for none."),
        option("torch_amp", "str or dict", NONE, 'Mixed precision: "bfloat16" or "float16".'),
        option("default_float_dtype", "str", '"float32"', "With `get_model`: the type of parameters and float data."),
        option(
            "torch_compile", "bool or dict", "False", "Layers inside of loops are compiled; options of torch.compile."
        ),
        option("torch_cuda_graph", "bool or int", "False", "Training steps on a GPU are recorded and repeated."),
        option("torch_profile", "bool or dict", "False", "Some steps are recorded by torch.profiler; then it ends."),
        option("torch_log_memory_usage", "bool", "False", "Step lines and epochs say what memory of a GPU is used."),
        option("PYTORCH_CUDA_ALLOC_CONF", "str", NONE, "How torch keeps memory of a GPU; put into the environment."),
        option("loggers", "list or dict", NONE, 'Where scalars go: "tensorboard", "csv", "wandb", "mlflow".'),
        option("torch_distributed", "dict", NONE, "How several processes train one model ([page](scale.md))."),
        option("float32_matmul_precision", "str", '"highest"', 'Precision of products on a GPU: "high", "medium".'),
    ),
)
