"""Arithmetic with axes."""

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from returnn_lite import frontend as rf
from returnn_lite.errors import ConfigError
from tests.frontend.helpers import sized

B = rf.Dim(3, name="B")
LENGTHS = st.lists(st.integers(0, 9), min_size=3, max_size=3)
OPERATIONS = {
    "add": (lambda d, n: d + n, lambda x, n: max(x + n, 0)),
    "radd": (lambda d, n: n + d, lambda x, n: max(x + n, 0)),
    "sub": (lambda d, n: d - n, lambda x, n: max(x - n, 0)),
    "sub_left": (lambda d, n: d.sub_left(n), lambda x, n: max(x - n, 0)),
    "mul": (lambda d, n: d * n, lambda x, n: x * n),
    "floordiv": (lambda d, n: d // n, lambda x, n: x // n),
    "truediv": (lambda d, n: d / n, lambda x, n: x // n),
    "div_left": (lambda d, n: d.div_left(n), lambda x, n: x // n),
    "ceildiv": (lambda d, n: d.ceildiv_right(n), lambda x, n: -(-x // n)),
    "ceildiv_left": (lambda d, n: d.ceildiv_left(n), lambda x, n: -(-x // n)),
}


@given(LENGTHS, st.integers(1, 5), st.sampled_from(sorted(OPERATIONS)))
def test_sizes_are_computed_one_by_one(lengths, number, name):
    on_dims, on_numbers = OPERATIONS[name]
    dim = on_dims(sized(lengths, B), number)
    assert dim.get_size_tensor().raw_tensor.tolist() == [on_numbers(x, number) for x in lengths]


@given(LENGTHS, LENGTHS)
def test_two_axes(a, b):
    x, y = sized(a, B, "x"), sized(b, B, "y")
    assert (x + y).dyn_size.tolist() == [p + q for p, q in zip(a, b, strict=True)]
    assert (x - y).dyn_size.tolist() == [max(p - q, 0) for p, q in zip(a, b, strict=True)]
    assert (x * y).padded_size() == max(p * q for p, q in zip(a, b, strict=True))
    assert (x + y) - y is x and (x + y).sub_left(x) is y and (x * y) // y is x and (x * y).div_left(x) is y


def test_the_same_expression_is_the_same_axis():
    time, other, fixed = sized([5, 3, 1], B), sized([4, 4, 4], B), rf.Dim(6, name="F")
    for made in (lambda d: d + 1, lambda d: 2 * d, lambda d: d.ceildiv_right(3), lambda d: d + other, lambda d: -d):
        assert made(time) is made(time)
    for neutral in (time + 0, time - 0, 0 + time, time * 1, 1 * time, time // 1, time / 1, time.ceildiv_right(1)):
        assert neutral is time
    assert (time + 2) - 2 is time and (time - 2) + 2 is time and (2 + time).sub_left(2) is time
    assert (time * 2) // 2 is time and (2 * time).div_left(2) is time and (time * 2).div_right(2) is time
    negative = -time
    assert time + time is 2 * time and -negative is time
    assert time.ceildiv_right(2).ceildiv_right(3) is time.ceildiv_right(6) and time // 2 // 3 is time // 6
    assert 2 + time != time + 2 and time * 2 != 2 * time and time + other != other + time
    assert (time + 1) + 2 != time + 3 and sum([fixed, fixed]).dimension == 12


def test_fixed_sizes():
    a, b = rf.Dim(7, name="a"), rf.Dim(3, name="b")
    assert [(a + b).dimension, (a - b).dimension, (b - a).dimension, (a * b).dimension] == [10, 4, -4, 21]
    assert [(a // b).dimension, a.ceildiv_right(b).dimension, (-a).dimension, (8 // b).dimension] == [2, 3, -7, 2]


def test_how_an_axis_was_made():
    time = sized([5, 3, 1], B)
    op = (time - 2).derived_from_op
    assert op.kind == "add" and op.inputs[0] is time and op.inputs[1].derived_from_op.attribs == {"value": -2}
    assert op.inputs[1].is_constant_static_dim() and time.derived_from_op is None
    assert (time + 2).name == "time+2" and ((time + 2) * 3).name == "(time+2)*3"
    assert not (rf.batch_dim + 1).is_batch_dim() and (rf.batch_dim + 1) != rf.batch_dim


def test_axes_of_a_step_are_not_kept_by_those_of_the_model():
    lasting, times = rf.Dim(2, name="lasting"), sized([1, 2, 3], B)
    seen = []
    for _ in range(3):
        own = sized([2, 2, 1], B, "own")
        made = [lasting + own, own * lasting, times + own, lasting * rf.Dim(3, name="fixed")]
        assert lasting + own is made[0] and times + own is made[2]
        seen += [weakref.ref(dim) for dim in made]
        del own, made
    gc.collect()
    assert not [dim for dim in seen if dim() is not None]


def test_sizes_that_come_later():
    time = rf.Dim(None, name="time")
    later = (time * 2 + 1) // 3
    assert later.dyn_size_ext is None and not later.is_static()
    time.dyn_size_ext = rf.convert_to_tensor([4, 2, 0], dims=[B], dtype="int64")
    assert later.dyn_size.tolist() == [3, 1, 0] and later.dyn_size_ext.dtype == "int64"


def test_with_other_things():
    with pytest.raises(ConfigError, match="needs an axis or an int, but got 1.5"):
        B + 1.5
