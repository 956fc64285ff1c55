"""Options of the tasks that do not train."""

from returnn_lite.config.options.option import NONE, Group, option

TASKS = Group(
    "Forward, search, evaluation",
    "Each option applies to the task of its name, unless stated otherwise.",
    (
        option("forward_data", "dataset or str", '"eval"', "The dataset to forward."),
        option("forward_output_layer", "str", '"output"', "The layer to write; also used by `compute_priors`."),
        option("forward_batch_size", "int or dict", NONE, "`batch_size` of the task; required with `network`."),
        option("forward_use_search", bool, "False", "Forwards in search mode."),
        option("forward_override_hdf_output", bool, "False", "An existing `output_file` is overwritten."),
        option(
            "forward_auto_split_batch_on_oom", "bool", "False", "Batches that exceed the GPU memory are split in two."
        ),
        option("forward_callback", "object, class or function", NONE, "Receives the outputs; replaces the file."),
        option(
            "to_torch_file", "str", '"net.py"', "The Python file that `to_torch` writes; the weights are next to it."
        ),
        option("to_torch_network", "str", '"forward"', "The `task` that a config sees while `to_torch` runs."),
        option("to_torch_search", bool, "False", "`to_torch` writes a beam search."),
        option("export_file", "str", '"net"', "What `export` writes: this name with .pt2, .onnx and .json."),
        option("export_formats", "str or list", '["pt2", "onnx"]', "Those that `export` writes."),
        option("export_loop", "str", NONE, "The decoder of which `export` writes a step: a loop that searches."),
        option("sort_dataset", "bool", "True", "With `get_model`: the longest sequences come first."),
        option("output_file", "str", NONE, "The output file of `forward`, `compute_priors` and `plot_schedule`."),
        option("search_data", "dataset or str", NONE, "The dataset to search."),
        option("search_do_eval", bool, "True", "The search reports scores, which needs targets."),
        option("search_output_layer", "str or list", '"output"', "The layer with the hypotheses."),
        option("search_output_file", "str", NONE, "The file for the texts."),
        option("search_output_file_format", "str", '"txt"', '"txt", one line per sequence, or "py", a dict by tag.'),
        option(
            "search_plot",
            "str, list or dict",
            NONE,
            "Layers whose attention weights are plotted, one picture per sequence.",
        ),
        option("eval_output_file", "str", NONE, "The file for the scores of the task `eval`."),
        option("eval_output_file_per_seq", "str", NONE, "Not supported."),
    ),
)
