"""Texts made uniform before they become class indices, and their symbols."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean

PostProcessor = Callable[[str], str]

ABBREVIATIONS = {
    "mrs": "misses", "ms": "miss", "mr": "mister", "dr": "doctor", "st": "saint", "co": "company", "jr": "junior",
    "maj": "major", "gen": "general", "drs": "doctors", "rev": "reverend", "lt": "lieutenant", "hon": "honorable",
    "sgt": "sergeant", "capt": "captain", "esq": "esquire", "ltd": "limited", "col": "colonel", "ft": "fort",
}  # fmt: skip
_ABBREVIATION = re.compile(rf"\b({'|'.join(ABBREVIATIONS)})\.", re.IGNORECASE)
_SPACES = re.compile(r"\s+")


def lowercase(text: str) -> str:
    """In small letters."""
    return text.lower()


def lowercase_keep_special(text: str) -> str:
    """In small letters, but words that begin with [..] or <..> stay as they are."""
    return re.sub(r"(^|\s)(?!\[\S*\]|<\S*>)\S+", lambda found: found[0].lower(), text)


def collapse_whitespace(text: str) -> str:
    """With single spaces between words and none around."""
    return _SPACES.sub(" ", text).strip()


def expand_abbreviations(text: str) -> str:
    """With "doctor" for "Dr." and so on."""
    return _ABBREVIATION.sub(lambda found: ABBREVIATIONS[found[1].lower()], text)


def basic_cleaners(text: str) -> str:
    """In small letters with single spaces."""
    return collapse_whitespace(lowercase(text))


def convert_to_ascii(text: str) -> str:
    """With ASCII characters only, as the package unidecode has it, else without accents."""
    try:
        from unidecode import unidecode
    except ImportError:
        return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return str(unidecode(text))


def normalize_numbers(text: str) -> str:
    """With numbers in words; needs the package inflect."""
    try:
        import inflect
    except ImportError:
        raise ConfigError("normalize_numbers", "needs the package inflect") from None
    engine = inflect.engine()
    text = re.sub(r"(\d),(?=\d{3})", r"\1", text)
    return re.sub(r"\d+(st|nd|rd|th)?", lambda found: str(engine.number_to_words(found[0])).replace(",", ""), text)


def transliteration_cleaners(text: str) -> str:
    """ASCII, small letters, single spaces."""
    return basic_cleaners(convert_to_ascii(text))


def english_cleaners(text: str) -> str:
    """ASCII, small letters, numbers and abbreviations in words, single spaces."""
    return collapse_whitespace(expand_abbreviations(normalize_numbers(lowercase(convert_to_ascii(text)))))


def english_cleaners_keep_special(text: str) -> str:
    """As english_cleaners, but words that begin with [..] or <..> keep their case."""
    return collapse_whitespace(expand_abbreviations(normalize_numbers(lowercase_keep_special(convert_to_ascii(text)))))


def get_remove_chars(chars: str) -> PostProcessor:
    """A function that makes each of these characters a space, then collapses spaces."""
    table = str.maketrans(chars, " " * len(chars))
    return lambda text: collapse_whitespace(text.translate(table))


def get_replace(old: str, new: str) -> PostProcessor:
    """A function that replaces one text by another."""
    return lambda text: text.replace(old, new)


PLAIN: dict[str, PostProcessor] = {
    function.__name__: function
    for function in (
        lowercase, lowercase_keep_special, collapse_whitespace, expand_abbreviations, basic_cleaners, convert_to_ascii,
        normalize_numbers, transliteration_cleaners, english_cleaners, english_cleaners_keep_special,
    )
}  # fmt: skip
MAKERS: dict[str, Callable[..., PostProcessor]] = {"get_remove_chars": get_remove_chars, "get_replace": get_replace}


class TextFunction:
    """A post processor given by name, expression, function, or a list of these; None changes nothing."""

    def __init__(self, value: ConfigValue, path: str):
        self.value, self.path = value, path
        self.functions = [_function(part, path) for part in (value if isinstance(value, list | tuple) else [value])]
        tested = self("test")
        if not isinstance(tested, str):
            raise ConfigError(path, f"must return a text, but returned {tested!r} for 'test'")

    def __call__(self, text: str) -> str:
        for function in self.functions:
            text = function(text)
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.value, self.path)


def _unchanged(text: str) -> str:
    return text


def _function(value: ConfigValue, path: str) -> PostProcessor:
    if value is None:
        return _unchanged
    if callable(value):
        found: PostProcessor = value
        return found
    if isinstance(value, str) and ("(" in value or "," in value):
        return _made(value, path)
    if value in PLAIN:
        return PLAIN[value]
    hint = did_you_mean(str(value), [*PLAIN, *MAKERS]) or f"; known: {', '.join([*PLAIN, *MAKERS])}"
    raise ConfigError(path, f"unknown text function {value!r}{hint}")


def _made(text: str, path: str) -> PostProcessor:
    """A chain "a, b" or a call "get_replace('x', 'y')" of the functions here."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        parts = node.elts if isinstance(node, ast.Tuple | ast.List) else [node]
        functions = [_of_node(part, path) for part in parts]
    except (SyntaxError, ValueError) as exc:
        raise ConfigError(path, f'"{text}" must be names or calls of text functions: {exc}') from None

    def chain(text: str) -> str:
        for function in functions:
            text = function(text)
        return text

    return chain


def _of_node(node: ast.expr, path: str) -> PostProcessor:
    if isinstance(node, ast.Name):
        return _function(node.id, path)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS:
        keywords = {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
        return MAKERS[node.func.id](*[ast.literal_eval(arg) for arg in node.args], **keywords)
    raise ValueError(f"unknown: {ast.unparse(node)}")


# --- symbols ---


def parse_orthography(
    text: str,
    *,
    prefix: Iterable[str] = (),
    postfix: Iterable[str] = ("[END]",),
    remove_chars: str = "(){}",
    collapse_spaces: bool = True,
    final_strip: bool = True,
    **options: ConfigValue,
) -> list[str]:
    """The symbols of a text with beginning and end symbols: "a [b]" -> ["a", " ", "[B]", "[END]"]."""
    text = text.translate({ord(char): None for char in remove_chars})
    if collapse_spaces:
        text = _SPACES.sub(" ", text)
    if final_strip:
        text = text.strip()
    return [*prefix, *symbols_of(text, **options), *postfix]


def symbols_of(
    text: str, *, upper_case_special: bool = True, word_based: bool = False, square_brackets_for_specials: bool = True
) -> list[str]:
    """Characters or words; "[…]" is one symbol, in capitals. Each white space begins a word, which may stay empty."""
    symbols: list[str] = []
    for part, special in _specials(text) if square_brackets_for_specials else [(text, False)]:
        if special:
            part = part.upper() if upper_case_special else part
            if symbols and symbols[-1] == "":
                symbols[-1] = part
            else:
                symbols.append(part)
        elif word_based:
            first, *more = re.split(r"\s", part)
            if first:
                symbols[-1:] = [symbols[-1] + first if symbols else first]
            symbols += more
        else:
            symbols += part
    return symbols


def _specials(text: str) -> Iterator[tuple[str, bool]]:
    """The parts of a text outside and inside (True) of square brackets, which may be nested."""
    start = depth = 0
    for i, char in enumerate(text):
        if char == "[":
            if depth == 0 and i > start:
                yield text[start:i], False
                start = i
            depth += 1
        elif char == "]" and depth:
            depth -= 1
            if depth == 0:
                yield text[start : i + 1], True
                start = i + 1
    if start < len(text):
        yield text[start:], depth > 0
