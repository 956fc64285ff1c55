"""Typed access: every cell of the table accessor x (typed, untyped, absent), and the errors."""

from typing import Any

import numpy as np
import pytest

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError

KEY = "option"


def typed(value: Any) -> Config:
    return Config({KEY: value})


def untyped(text: str) -> Config:
    config = Config()
    config.set_text(KEY, text)
    return config


@pytest.mark.parametrize("access, value, expected", [
    ("value", "text", "text"),
    ("value", 3, "3"),
    ("value", True, "True"),
    ("value", [1, "a"], "1,a"),
    ("value", (1, 2), "1,2"),
    ("value", None, "default"),
    ("int", 3, 3),
    ("int", True, 1),
    ("int", None, None),
    ("int", [7, 8], 7),
    ("int", 3.0, 3),
    ("int", "12", 12),
    ("int", np.int64(5), 5),
    ("float", 2, 2.0),
    ("float", 2.5, 2.5),
    ("float", "inf", float("inf")),
    ("float", "1e-3", 0.001),
    ("float", None, None),
    ("float", [0.5, 2], 0.5),
    ("float", np.float32(0.5), 0.5),
    ("bool", True, True),
    ("bool", 0, False),
    ("bool", 2, True),
    ("bool", None, None),
    ("bool", "off", False),
    ("bool", np.bool_(True), True),
    ("is_true", "anything", True),
    ("is_true", [], False),
    ("is_true", None, False),
    ("bool_or_other", "chunk", "chunk"),
    ("bool_or_other", {"a": 1}, {"a": 1}),
    ("bool_or_other", None, None),
    ("typed_value", {"a": 1}, {"a": 1}),
    ("typed_value", None, None),
    ("opt_typed_value", [1], [1]),
    ("list", [1, 2], [1, 2]),
    ("list", (1, 2), [1, 2]),
    ("list", "a,b", ["a,b"]),
    ("list", 3, [3]),
    ("list", None, "default"),
    ("int_list", [1, True, 2.0], [1, 1, 2]),
    ("int_list", 4, [4]),
    ("int_list", None, "default"),
    ("float_list", [1, 0.5], [1.0, 0.5]),
    ("float_list", None, "default"),
    ("int_pair", [1, 2], (1, 2)),
    ("int_pair", (3, 4), (3, 4)),
    ("int_pair", 5, (5, 5)),
    ("int_pair", "6:7", (6, 7)),
    ("int_pair", None, "default"),
    ("literal", "text", "text"),
    ("literal", "12", "12"),
    ("number_or_dict", {"data": 10}, {"data": 10}),
    ("number_or_dict", 10, 10),
    ("number_or_dict", "10", 10),
    ("number_or_dict", None, None),
])  # fmt: skip
def test_typed(access: str, value: Any, expected: Any):
    result = getattr(typed(value), access)(KEY, "default")
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("access, text, expected", [
    ("value", "a b", "a b"),
    ("value", "a,b , c", "a,b , c"),
    ("typed_value", "3", "default"),
    ("opt_typed_value", "3,4", "3,4"),
    ("int", "3", 3),
    ("int", "3,4", 3),
    ("int", "-2", -2),
    ("float", "2", 2.0),
    ("float", "1e-4,3", 1e-4),
    ("float", "nan", float("nan")),
    ("bool", "TRUE", True),
    ("bool", "yes", True),
    ("bool", "on", True),
    ("bool", "1", True),
    ("bool", "-3", True),
    ("bool", "False", False),
    ("bool", "no", False),
    ("bool", "off", False),
    ("bool", "0", False),
    ("is_true", "true", True),
    ("is_true", "0", False),
    ("bool_or_other", "true", True),
    ("bool_or_other", "0", False),
    ("bool_or_other", "chunk", "chunk"),
    ("list", "a,b , c", ["a", "b ", " c"]),
    ("list", "a", ["a"]),
    ("list", ",x", [",x"]),
    ("int_list", "1,2", [1, 2]),
    ("float_list", "1,.5", [1.0, 0.5]),
    ("int_pair", "3:4", (3, 4)),
    ("int_pair", "3", (3, 3)),
    ("int_pair", "3,4", (3, 4)),
    ("literal", "3", 3),
    ("literal", "0.5", 0.5),
    ("literal", "{'a': 1, 'b': [2, 3]}", {"a": 1, "b": [2, 3]}),
    ("literal", "None", None),
    ("literal", "True", True),
    ("literal", "'quoted'", "quoted"),
    ("literal", "decision", "decision"),
    ("literal", "a,b", "a,b"),
    ("number_or_dict", "100", 100),
    ("number_or_dict", "1e4", 1e4),
    ("number_or_dict", "{'data': 10, 'classes': 20}", {"data": 10, "classes": 20}),
    ("number_or_dict", "(1, 2)", (1, 2)),
    ("number_or_dict", "[1,2]", [1, 2]),
])  # fmt: skip
def test_untyped(access: str, text: str, expected: Any):
    result = getattr(untyped(text), access)(KEY, "default")
    assert result == expected or (result != result and expected != expected)
    assert type(result) is type(expected)


ACCESSORS = [
    "value", "typed_value", "opt_typed_value", "int", "float", "bool", "is_true", "bool_or_other", "list", "int_list",
    "float_list", "int_pair", "literal", "number_or_dict",
]  # fmt: skip


@pytest.mark.parametrize("access", ACCESSORS)
def test_absent_gives_the_default(access: str):
    assert getattr(Config(), access)(KEY, "default") == "default"


def test_defaults_that_need_not_be_given():
    config = Config()
    assert config.typed_value(KEY) is None
    assert config.opt_typed_value(KEY) is None
    assert config.bool_or_other(KEY) is None
    assert config.is_true(KEY) is False
    assert config.list(KEY) == config.int_list(KEY) == config.float_list(KEY) == []
    assert config.int_pair(KEY) == (0, 0)


def test_index_picks_an_entry():
    assert typed([1, 2]).int(KEY, 0, index=1) == 2
    assert typed([1, 2]).value(KEY, None, index=1) == "2"
    assert untyped("0.1,0.2").float(KEY, 0, index=1) == 0.2
    assert typed(3).int(KEY, 0, index=1) == 3


@pytest.mark.parametrize("access, value", [
    ("int", 2.5),
    ("int", "two"),
    ("int", "2.5"),
    ("int", {"data": 3}),
    ("int", float("nan")),
    ("int", float("inf")),
    ("int", []),
    ("float", "fast"),
    ("float", {}),
    ("bool", "perhaps"),
    ("bool", 0.5),
    ("bool", {}),
    ("int_list", ["x"]),
    ("float_list", ["x"]),
    ("int_pair", [1, 2, 3]),
    ("int_pair", "a:b"),
    ("number_or_dict", "many"),
])  # fmt: skip
def test_nonsense_is_an_error_that_names_the_option(access: str, value: Any):
    with pytest.raises(ConfigError, match=r"^option: must be .*, but is .* instead$"):
        getattr(typed(value), access)(KEY, None)


@pytest.mark.parametrize("access, text", [
    ("int", "x"),
    ("float", "x"),
    ("bool", "x"),
    ("is_true", "x"),
    ("int_list", "1,x"),
    ("number_or_dict", "x"),
    ("number_or_dict", "{x}"),
    ("literal", "{'a': "),
])  # fmt: skip
def test_untyped_nonsense_is_an_error_that_names_the_option(access: str, text: str):
    with pytest.raises(ConfigError, match=r"^option: must be .*, but is .* instead$"):
        getattr(untyped(text), access)(KEY, None)


def test_typed_wins_over_untyped():
    config = untyped("1")
    config.set(KEY, 2)
    assert config.int(KEY, 0) == 2
    assert config.is_typed(KEY)


def test_has_and_is_typed():
    assert typed(None).has(KEY) and typed(None).is_typed(KEY)
    assert untyped("1").has(KEY) and not untyped("1").is_typed(KEY)
    assert not Config().has(KEY) and not Config().is_typed(KEY)


def test_set_and_update_define_typed_options_live():
    options: dict[str, Any] = {}
    config = Config(options)
    config.set("a", 1)
    config.update({"b": 2})
    assert options == {"a": 1, "b": 2} == config.typed == config.typed_dict


def test_python_names_and_the_name_config_are_no_options():
    config = Config({"config": {"a": 1}, "__file__": "x", "__builtins__": {}, "a": 1})
    assert config.keys() == ["a"]
    assert not config.has("config") and not config.is_typed("config")
    assert config.value("config", None) is None
    assert config.typed_value("config") is None


def test_unread_keys():
    config = Config({"a": 1, "b": 2, "c": 3})
    config.set_text("d", "4")
    config.int("a", 0)
    config.has("b")
    assert config.unread_keys() == ["c", "d"]
