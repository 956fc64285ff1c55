"""Numbers by key."""

import pickle

import pytest

from returnn_lite.compat.config_imports import config_imports
from returnn_lite.datasets.numbers_dict import NumbersDict

A = NumbersDict({"data": 6, "classes": 2})


@pytest.mark.parametrize("found, expected", [
    (A + 1, {"data": 7, "classes": 3}),
    (1 + A, {"data": 7, "classes": 3}),
    (10 - A, {"data": 4, "classes": 8}),
    (A - {"data": 1}, {"data": 5, "classes": 2}),
    (A - {"x": 1}, {"data": 6, "classes": 2, "x": -1}),
    (A * {"data": 2, "x": 3}, {"data": 12, "classes": 2, "x": 3}),
    (A / 4, {"data": 1.5, "classes": 0.5}),
    (A // 4, {"data": 1, "classes": 0}),
    (12 // A, {"data": 2, "classes": 6}),
    (12 / A, {"data": 2.0, "classes": 6.0}),
    (-A, {"data": -6, "classes": -2}),
    (sum([A, A]), {"data": 12, "classes": 4}),
    (NumbersDict.max([A, {"data": 1, "classes": 9}, 3]), {"data": 6, "classes": 9}),
    (NumbersDict.min([A, 3]), {"data": 3, "classes": 2}),
    (NumbersDict.min([A, {"data": 1}]), {"data": 1, "classes": 2}),
    (NumbersDict.constant_like(1, A), {"data": 1, "classes": 1}),
    (A.elem_eq({"data": 6, "classes": 3}), {"data": True, "classes": False}),
    (A.copy_like({"data": 0}), {"data": 6}),
    (A.unary_op(abs), A.dict),
])  # fmt: skip
def test_key_by_key(found, expected):
    assert isinstance(found, NumbersDict) and found.dict == expected


def test_equality():
    assert A == {"classes": 2, "data": 6} and A == NumbersDict(A) and A != {"data": 6} and A != A + 1
    assert NumbersDict(5) == 5 and NumbersDict(5) != 7 and NumbersDict(5) != NumbersDict(7)
    assert NumbersDict({"data": 5, "x": 5}) == 5 and A != 6 and NumbersDict() != 0 and NumbersDict() == {}
    assert NumbersDict({"data": 5}, broadcast_value=1) != {"data": 5}
    with pytest.raises(TypeError):
        hash(A)


def test_a_number_for_all_other_keys():
    numbers = NumbersDict({"data": 3}, broadcast_value=2)
    assert (numbers["data"], numbers["x"], numbers.get("y")) == (3, 2, 2) and list(numbers) == ["data"]
    assert (numbers + A).dict == {"data": 9, "classes": 4} and (numbers + A)["x"] == 2
    assert NumbersDict.max([numbers, 2.5])["x"] == 2.5 and numbers.max_value() == 3 and numbers.min_value() == 2
    assert numbers.elem_eq(2)["x"] is True and "x" not in numbers.elem_eq(2, result_with_default=False).dict
    assert pickle.loads(pickle.dumps(numbers)) == numbers == numbers.copy() and numbers.has_values()
    with pytest.raises(KeyError):
        A["x"]
    assert not NumbersDict() and NumbersDict(0) and repr(NumbersDict(0)) == "NumbersDict(broadcast_value=0)"
    assert NumbersDict.keys_union([A, {"x": 1}]) == {"data", "classes", "x"}


def test_any_compare_takes_the_keys_that_both_have():
    assert A.any_compare({"data": 5}, lambda a, b: a > b) and not A.any_compare({"x": 1}, lambda a, b: a > b)
    assert A.any_compare(3, lambda a, b: a < b)


def test_configs_import_it():
    for line in ("from returnn.util import NumbersDict", "from returnn.util.basic import NumbersDict"):
        found = {}
        with config_imports():
            exec(line, found)
        assert found["NumbersDict"] is NumbersDict
