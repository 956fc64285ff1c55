"""Pieces of words by a SentencePiece model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from returnn_lite.errors import ConfigError
from returnn_lite.vocab.base import Label, Vocabulary


class SentencePieces(Vocabulary):
    """A model of the sentencepiece package: `model_file`, or its bytes `model_proto`.

    `add_bos`, `add_eos`, `reverse`, `enable_sampling`, `nbest_size` and `alpha` are that package's options.
    """

    def __init__(
        self,
        *,
        model_file: str | None = None,
        model_proto: bytes | None = None,
        add_bos: bool = False,
        add_eos: bool = False,
        reverse: bool = False,
        enable_sampling: bool = False,
        nbest_size: int = -1,
        alpha: float = 0.1,
        control_symbols: Mapping[str, Label] | None = None,
        user_defined_symbols: Mapping[str, Label] | None = None,
        path: str = "vocab",
    ):
        if (model_file is None) == (model_proto is None):
            raise ConfigError(path, "SentencePieces needs model_file or model_proto")
        options: dict[str, Any] = {"add_bos": add_bos, "add_eos": add_eos, "reverse": reverse}
        if enable_sampling:
            options |= {"enable_sampling": True, "nbest_size": nbest_size, "alpha": alpha}
        self.options = options
        self.proto = model_proto if model_proto is not None else _read(str(model_file), path)
        self._load(path)
        model = self.model
        super().__init__(
            labels=[model.id_to_piece(i) for i in range(model.get_piece_size())],
            unknown_label=model.unk_id(),
            bos_label=model.bos_id(),
            eos_label=model.eos_id(),
            pad_label=model.pad_id(),
            control_symbols=control_symbols,
            user_defined_symbols=user_defined_symbols,
            path=path,
        )

    def _load(self, path: str) -> None:
        try:
            import sentencepiece
        except ImportError:
            raise ConfigError(
                path, 'SentencePieces needs the package sentencepiece: pip install "returnn-lite[text]"'
            ) from None
        self.module = sentencepiece
        try:
            self.model = sentencepiece.SentencePieceProcessor(model_proto=self.proto)
        except (RuntimeError, OSError) as exc:
            raise ConfigError(path, f"model_file cannot be read by sentencepiece: {exc}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("model", "module")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._load(self.path)

    def set_random_seed(self, seed: int) -> None:
        """Begins anew with sampling."""
        if self.options.get("enable_sampling"):
            self.module.set_random_generator_seed(seed)

    def get_seq(self, text: str) -> list[int]:
        """Indices of the pieces."""
        return list(self.model.encode(text, out_type=int, **self.options))

    def text_of(self, ids: Iterable[int]) -> str:
        """The text without piece borders."""
        return str(self.model.decode([int(i) for i in ids]))


def _read(filename: str, path: str) -> bytes:
    if not os.path.isfile(filename):
        raise ConfigError(f"{path}: model_file", f"file {filename} does not exist")
    with open(filename, "rb") as file:
        return file.read()
