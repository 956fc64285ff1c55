"""Model files: written, kept, loaded."""

from returnn_lite.config.options.option import NONE, Count, Group, option

FILES = Group(
    "Model files",
    "See [checkpoints.md](checkpoints.md).",
    (
        option("model", "str", NONE, "Path of the model files, without epoch and extension."),
        option("save_interval", Count, "1", "Epochs between saved models; the last one is always saved."),
        option("save_epoch1_initial_model", bool, "False", "Also saves the model before the first epoch."),
        option("checkpoint_format", "str", '"pt"', '"pt", "tf" (that of TensorFlow), or "both".'),
        option("cleanup_old_models", "bool or dict", "False", "Deletes models: `keep_last_n`, `keep_best_n`, `keep`."),
        option(
            "apply_cleanup_old_models_to_optim_states", bool, "False",
            "Optimizer files are deleted with their models; else only the last two are kept.",
        ),
        option("load", "str", NONE, "The model file to start from."),
        option("load_epoch", Count, "0", "The epoch of `model` to start from."),
        option("epoch", Count, "0", "The same, for tasks that do not train."),
        option("import_model_train_epoch1", "str", NONE, "A model file from which training starts, at epoch 1."),
        option("preload_from_files", "dict", NONE, "Parts of other model files; they override the main one."),
        option("load_ignore_missing_vars", bool, "False", "Parameters missing in the file keep their initial values."),
        option("load_averaged", 'bool or "auto"', '"auto"', "Averaged parameters; auto: as `weight_averaging` says."),
        option("load_model_post_hooks", "list of functions", NONE, "Called after a model is loaded."),
        option("allow_random_model_init", bool, "False", "Tasks other than training may run without a model file."),
        option("reset_optimizer_on_restart", bool, "False", "The optimizer starts from scratch when training resumes."),
    ),
)  # fmt: skip
