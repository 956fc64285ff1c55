"""Options of the tasks that do not train."""

from returnn_lite.config.options.option import NONE, Group, option

TASKS = Group(
    "Forward, search, evaluation",
    "Each counts in the task of its name, unless it says more.",
    (
        option("forward_data", "dataset or str", '"eval"', "What is forwarded."),
        option("forward_output_layer", "str", '"output"', "The layer to write; that of `compute_priors`, too."),
        option("forward_batch_size", "int or dict", NONE, "Its `batch_size`; needed with `network`."),
        option("forward_use_search", bool, "False", "Forwards in search mode."),
        option("forward_override_hdf_output", bool, "False", "An existing `output_file` is replaced."),
        option("forward_auto_split_batch_on_oom", "bool", "False", "Batches beyond the GPU's memory are cut in two."),
        option("forward_callback", "object, class or function", NONE, "Takes the outputs in place of a file."),
        option("to_torch_file", "str", '"net.py"', "The Python file that `to_torch` writes; weights beside it."),
        option("to_torch_search", bool, "False", "`to_torch` writes a beam search."),
        option("sort_dataset", "bool", "True", "With `get_model`: the longest sequences come first."),
        option("output_file", "str", NONE, "What `forward`, `compute_priors` and `plot_schedule` write."),
        option("search_data", "dataset or str", NONE, "What is searched."),
        option("search_do_eval", bool, "True", "Search reports scores, which needs targets."),
        option("search_output_layer", "str or list", '"output"', "The layer with the hypotheses."),
        option("search_output_file", "str", NONE, "Where the texts go."),
        option("search_output_file_format", "str", '"txt"', '"txt", a line each, or "py", a dict by tag.'),
        option(
            "search_plot", "str, list or dict", NONE, "Layers whose attention weights are drawn, a picture a sequence."
        ),
        option("eval_output_file", "str", NONE, "Where the task eval writes its scores."),
        option("eval_output_file_per_seq", "str", NONE, "Not supported."),
    ),
)
