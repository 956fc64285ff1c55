"""Tokenizers of the transformers package."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError
from returnn_lite.vocab.base import Vocabulary


class HuggingFaceTokenizer(Vocabulary):
    """A tokenizer in the folder `huggingface_repo_dir`, or the object `tokenizer` itself.

    `map_bos_to_eos` takes the end symbol as beginning symbol, `text_preprocessing` is a function applied to texts.
    """

    def __init__(
        self,
        *,
        huggingface_repo_dir: str | None = None,
        tokenizer: ConfigValue = None,
        map_bos_to_eos: bool = False,
        text_preprocessing: Callable[[str], str] | None = None,
        bpe_dropout: float = 0.0,
        path: str = "vocab",
    ):
        if tokenizer is None:
            tokenizer = _load(huggingface_repo_dir, path)
        self.tokenizer, self.preprocess = tokenizer, text_preprocessing
        if bpe_dropout:
            tokenizer.backend_tokenizer.model.dropout = bpe_dropout
        ids = {"unknown_label": tokenizer.unk_token_id, "eos_label": tokenizer.eos_token_id}
        bos = tokenizer.eos_token_id if map_bos_to_eos else tokenizer.bos_token_id
        labels = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        super().__init__(labels=labels, **ids, bos_label=bos, pad_label=tokenizer.pad_token_id, path=path)

    def get_seq(self, text: str) -> list[int]:
        """Indices of the tokens."""
        return list(self.tokenizer(self.preprocess(text) if self.preprocess else text)["input_ids"])

    def get_seq_labels(self, ids: Iterable[int]) -> str:
        """The text, without special tokens."""
        return str(self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True))


def _load(folder: str | None, path: str) -> Any:
    if folder is None:
        raise ConfigError(path, "HuggingFaceTokenizer needs huggingface_repo_dir or tokenizer")
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise ConfigError(path, "HuggingFaceTokenizer needs the package transformers") from None
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path}: huggingface_repo_dir", f"{folder} cannot be read: {exc}") from None
