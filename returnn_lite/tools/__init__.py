"""Console tools: `returnn-lite NAME …`, the programs `returnn-lite-NAME`, and scripts in `tools/` of the repository."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence

# name -> ("module:function", what it does); in each group by name
TOOLS: dict[str, tuple[str, str]] = {
    "data": ("own_data.command:main", "data sets from your own audio files and texts"),
    "analyze-dataset-batches": ("analyze_batches:main", "batch sizes and padding of a dataset"),
    "dump-dataset": ("dump_dataset:main", "sequences of a dataset, and statistics of them"),
    "dump-dataset-raw-strings": ("dump_raw_strings:main", "the texts of a dataset as a Python dict"),
    "hdf-dump": ("hdf_dump:main", "any dataset as an HDF file"),
    "hdf-dump-translation-dataset": ("translation_hdf:main", "pairs of sentences as an HDF file"),
    "bliss-collect-seq-lens": ("bliss:seq_lens_main", "lengths of the segments of a Bliss corpus"),
    "bliss-dump-text": ("bliss:text_main", "texts of a Bliss corpus"),
    "bliss-get-segment-names": ("bliss:segment_names_main", "names of the segments of a Bliss corpus"),
    "bliss-to-ogg-zip": ("bliss_to_ogg_zip:main", "audio of a Bliss corpus as a zip file for OggZipDataset"),
    "bpe-create-lexicon": ("bpe_lexicon:main", "a lexicon: words and their BPE pieces"),
    "collect-orth-symbols": ("collect_symbols:symbols_main", "counts of characters, and a vocabulary"),
    "collect-words": ("collect_symbols:words_main", "counts of words, and a vocabulary"),
    "calculate-word-error-rate": ("word_error_rate:main", "errors of texts against references"),
    "dump-forward": ("dump_forward:main", "outputs of layers for a dataset"),
    "get-attention-weights": ("attention_pictures:main", "attention weights as pictures"),
    "get-best-model-epoch": ("best_epoch:main", "the epoch with the best score"),
    "tune-scales": ("tune_scales:main", "the best scales for combining scores of hypotheses"),
    "avg-checkpoints": ("avg_checkpoints:main", "the mean of several models"),
    "torch-avg-checkpoints": ("avg_checkpoints:torch_main", "the same, with the arguments of RETURNN's tool"),
    "tf-avg-checkpoints": ("avg_checkpoints:tf_main", "the same for files of TensorFlow's format"),
    "cleanup-old-models": ("cleanup_models:main", "deletes models that need not be kept"),
    "convert-checkpoint": ("convert_checkpoint:main", "model files from and to TensorFlow's format"),
    "count-params": ("count_params:main", "how many parameters a model has, and where"),
    "inspect-checkpoint": ("inspect_checkpoint:main", "names, shapes and statistics of a model file"),
    "layer-reference": ("layer_reference:main", "all layer classes with their options, as Markdown"),
    "loss-reference": ("class_help:main", "all losses with their options, as Markdown"),
    "option-reference": ("option_reference:main", "all global options, as Markdown and as a JSON schema for editors"),
    "frontend-names": ("frontend_names:main", "the names of returnn.frontend, as Markdown"),
    "compatibility": ("compatibility:main", "what is supported and refused, as Markdown"),
    "room-sizes": ("room_sizes:main", "files of the package, and their sizes"),
}
LIST = "tools"
PREFIX = "returnn-lite-"  # of the programs that are a tool each


def tool_of(argument: str) -> str | None:
    """The name of the tool that the first argument of a command line means; None for a file of this name, or none."""
    name = argument.replace("_", "-")
    return name if (name in TOOLS or name == LIST) and not os.path.isfile(argument) else None


def tool_of_program(path: str) -> str:
    """The name of the tool that a program is for: bin/returnn-lite-hdf-dump -> hdf-dump."""
    return os.path.basename(path).removesuffix(".exe").removeprefix(PREFIX)


def run_tool(name: str, argv: Sequence[str]) -> int:
    """Runs a tool; the exit code. The tool "tools" lists all."""
    if name == LIST:
        width = max(map(len, TOOLS))
        print("\n".join(f"{tool:{width}}  {meaning}" for tool, (_, meaning) in TOOLS.items()))
        return 0
    module, _, function = TOOLS[name][0].partition(":")
    main: Callable[[Sequence[str]], int] = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return main(argv)
