"""Gradients and updates."""

from returnn_lite.config.options.option import NONE, Count, Group, option

OPTIMIZER = Group(
    "Gradients and updates",
    "See [optimizers.md](optimizers.md). Gradients are processed in the order of this table.",
    (
        option("optimizer", "dict", NONE, "`class` and its options; by default plain gradient descent."),
        option("optimizer_epsilon", "float", "1e-16", "Default of `epsilon` for the rules of layer configs."),
        option(
            "accum_grad_multiple_step",
            "int or function",
            "1",
            "Batches whose gradients are summed for one update ([page](training.md)).",
        ),
        option(
            "maximize_grad_norm", "float", "0", "Factor of the negated gradient of the gradient norm, which is added."
        ),
        option("gradient_noise", "float", "0", "Standard deviation of noise on gradients."),
        option("gradient_clip", "float", "0", "Largest absolute value of a gradient entry; 0: no limit."),
        option("gradient_clip_norm", "float", "0", "Largest norm of the gradient of each parameter."),
        option("gradient_clip_avg_norm", "float", "0", "The same for the norm per entry."),
        option("gradient_clip_global_norm", "float", "0", "Largest norm of all gradients together."),
        option("gradient_clip_global_norm_tag", "str", NONE, "The norm is computed over parameters with this tag."),
        option("global_norm_tag", "str", NONE, "Default of `gradient_clip_global_norm_tag`."),
        option("gradient_nan_inf_filter", "bool", "False", "NaN and infinite entries of gradients are set to 0."),
        option("grad_norm_to_clip_to_zero", "float", "0", "All gradients are set to 0 if their norm is larger."),
        option(
            "num_allowed_consec_invalid_gradient_steps",
            "int",
            NONE,
            "Consecutive updates that may be skipped because of NaN.",
        ),
        option(
            "log_grad_norm",
            "bool or float",
            "False",
            "Reports the gradient norm of each update; a number is the p of the norm.",
        ),
        option(
            "grad_scaler", "dict", NONE, "Options of torch.amp.GradScaler; default: {} for float16, otherwise none."
        ),
        option("grad_checkpoint", "bool or list", "False", "Layers that are recomputed in the backward pass."),
        option("decouple_constraints", bool, "False", "`L2` of layers is applied as parameter decay, not as a loss."),
        option("extra_updates", "dict", NONE, "{parameter: function}, called after each update."),
        option("reset_updater_vars_mod_step", Count, "0", "Steps between resets of the optimizer's state."),
        option("weight_averaging", "dict", NONE, "Averages of the parameters: `kind`, `decay`, …"),
        option("weight_decay_modules_blacklist", "list", NONE, "With `get_model`: modules without weight decay."),
        option("weight_decay_custom_include_check", "function", NONE, "With `get_model`: which parameters decay."),
        option("param_groups_custom", "function", NONE, "With `get_model`: returns the parameter groups."),
        option("adam", "bool", "False", 'Old form of `optimizer`: class "adam".'),
        option("nadam", "bool", "False", "Old form, as above."),
        option("adadelta", "bool", "False", "Old form, as above."),
        option("adagrad", "bool", "False", "Old form, as above."),
        option("rmsprop", "bool or float", "False", "Old form, as above; a number is its decay."),
        option("momentum", "float", "0", 'Old form: class "momentum"; default of the option of other classes.'),
    ),
)

LEARNING_RATE = Group(
    "Learning rate",
    "The learning-rate file records the rate of each epoch; see [optimizers.md](optimizers.md).",
    (
        option("learning_rate", "float", "1.0", "The learning rate, or the initial one."),
        option("learning_rates", "list, dict or str", NONE, "Rates of the first epochs (list), or by epoch (dict)."),
        option("min_learning_rate", "float", "0.0", "Lower bound of a decayed rate."),
        option("pretrain_learning_rate", "float", NONE, "The rate in pretraining; by default `learning_rate`."),
        option("learning_rate_file", "str", NONE, "Rates and scores of all epochs; needed to resume."),
        option("learning_rate_control", "str", '"constant"', '"newbob_rel", "newbob_abs", "newbob_multi_epoch", …'),
        option("learning_rate_control_error_measure", "str or list", NONE, "The score to use: a key of the file."),
        option("learning_rate_control_min_num_epochs_per_new_lr", "int", "0", "Epochs for which a new rate is kept."),
        option("learning_rate_control_relative_error_relative_lr", bool, "False", "Thresholds shrink with the rate."),
        option("learning_rate_decay", "float or function", NONE, "By default `newbob_learning_rate_decay`, or 0.5."),
        option("learning_rate_growth", "float or function", NONE, "By default `newbob_learning_rate_growth`, or 1."),
        option("newbob_learning_rate_decay", "float or function", "0.5", "Factor of a rate when scores stall."),
        option("newbob_learning_rate_growth", "float or function", "1.0", "Factor of a rate when they do not."),
        option("newbob_relative_error_threshold", "float", "-0.01", "Threshold of the relative change of the score."),
        option("newbob_relative_error_grow_threshold", "float", NONE, "The same for growth; default: the one above."),
        option("newbob_relative_error_div_by_old", bool, "False", "Relative to the older score."),
        option("newbob_error_threshold", "float", "-0.01", "newbob_abs: threshold of the change of the score."),
        option("newbob_multi_num_epochs", "int", "5", "newbob_multi_epoch: number of epochs to average over."),
        option("newbob_multi_update_interval", "int", NONE, "newbob_multi_epoch: epochs between decisions."),
        option("use_learning_rate_control_always", bool, "False", "The control is also active in pretraining."),
        option("dynamic_learning_rate", "dict or function", NONE, "Changes the rate step by step."),
        option("learning_rate_piecewise_steps", "list", NONE, "Steps (or epochs) for linear interpolation."),
        option("learning_rate_piecewise_values", "list", NONE, "Factors of `learning_rate` at these points."),
        option("learning_rate_piecewise_by_epoch_continuous", "bool", "False", "They are epochs: 1.5, 2.0."),
        option("lr_scheduler", "dict or list", NONE, "Schedulers of torch.optim."),
        option("learning_rate_agent", "str", NONE, "File of the agent that chooses rates."),
        option("lr_agent", "dict", NONE, "How it is trained and used ([page](learned_schedules.md))."),
        option("lr_agent_eval", "dict", NONE, "What `eval_lr_agent` compares."),
    ),
)  # fmt: skip
