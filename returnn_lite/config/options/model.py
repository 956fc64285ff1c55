"""What is trained."""

from returnn_lite.config.options.option import NONE, Group, option

MODEL = Group(
    "The model",
    "A dict of layers (`network`, `get_network`), or a module of torch or `returnn.frontend` (`get_model`).",
    (
        option("network", "dict", NONE, "The layers by name."),
        option("get_network", "function", NONE, "`f(epoch=…)` returns the dict of layers; replaces `network`."),
        option("get_model", "function", NONE, "`f(epoch=…, step=…, device=…)` returns the module."),
        option("train_step", "function", NONE, "With `get_model`: marks the losses of a batch."),
        option("forward_step", "function", NONE, "With `get_model`: marks the outputs of a batch."),
        option("model_outputs", "dict", NONE, "With `get_model`: the axes of outputs, as in `extern_data`."),
        option("extern_data", "dict", NONE, "The data keys and their sizes; default: those of the dataset."),
        option("num_inputs", "int", NONE, "Old form of `extern_data`: features of the key `data`."),
        option("num_outputs", "dict or int", NONE, "Old form of `extern_data`: {key: (size, number of axes)}."),
        option("sparse_input", bool, "False", "Old form of `extern_data`: `data` contains class indices."),
        option("target", "str", '"classes"', "The default target key."),
        option("default_input", "str", '"data"', 'The key that `"from": "data"` means.'),
        option("inf_value", "float", "inf", "The value used for infinity in masked attention."),
        option("optimize_move_layers_out", bool, "True", "Layers are moved out of loops where possible."),
        option("network_fusion", bool, "True", "Groups of layers are computed by one fused operation where possible."),
        option("tf_native_ctc_zero_infinity", bool, "False", "Sequences without a valid alignment have zero gradient."),
        option("param_dropout", "float", "0", "Dropout of all parameters; layers can override it."),
        option("param_dropout_min_ndim", "int", NONE, "Least number of axes of parameters with `param_dropout`."),
        option("param_variational_noise", "float", "0", "Standard deviation of noise on all parameters."),
        option("reinit_network_each_epoch", bool, "False", "The network is rebuilt for each epoch."),
        option(
            "pretrain", "dict, str or bool", NONE, "Nets of the first epochs: `construction_algo`, `repetitions`, …"
        ),
        option("pretrain_copy_output_layer", "bool or str", NONE, "Default of `copy_output_layer` in `pretrain`."),
        option("pretrain_repetitions", "int, list or dict", NONE, "Default of `repetitions` in `pretrain`."),
        option("pretrain_construction_algo", "str or function", NONE, "Default of `construction_algo` in `pretrain`."),
        option("pretrain_greedy", "bool", NONE, "Default of `greedy` in `pretrain`."),
    ),
)

FRONTEND = Group(
    "`returnn.frontend`",
    "Defaults of its functions; unset ones depend on `behavior_version`.",
    (
        option("rf_use_mask", "bool", NONE, "Convolutions, poolings and similar functions mask padding."),
        option("rf_use_mask_conv", "bool", NONE, "The same for convolutions alone."),
        option("rf_use_mask_transposed_conv", "bool", NONE, "The same for transposed convolutions."),
        option("rf_use_mask_pool", "bool", NONE, "The same for poolings."),
        option("rf_use_mask_stft", "bool", NONE, "The same for `stft`."),
        option("rf_use_mask_window", "bool", NONE, "The same for `window`."),
        option("rf_use_mask_scatter", "bool", NONE, "The same for `scatter`."),
        option("rf_use_mask_BatchNorm", "bool", NONE, "The same for `BatchNorm`."),
        option("rf_conformer_conv_norm_use_mask", "bool", NONE, "The same for the norm of a conformer's convolution."),
        option(
            "rf_use_consistent_same_padding", "bool", NONE, 'Padding "same" is independent of the longest sequence.'
        ),
        option("rf_scatter_use_fixed_masking", "bool", NONE, "`scatter` masks the values, not the indices."),
        option("rf_dropout_broadcast", "bool", "True", "Dropout of modules has one mask for all frames."),
        option("rf_att_dropout_broadcast", "bool", NONE, "The same for attention weights."),
        option("rf_specaugment_num_masks_per_seq", "bool", NONE, "SpecAugment counts masks by each sequence's length."),
        option("rf_module_output_keep_dtype", "bool", NONE, "Modules give the type of their input under `torch_amp`."),
    ),
)
