"""Effects natively: what is printed is what the reference evaluator prints, in order."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Native, build, machines

from mapsto import ir
from mapsto.ir.core import Location
from mapsto.ir.dims import symbol
from mapsto.ir.errors import AssertionFailed
from mapsto.ir.ops.flow import branch, scan
from mapsto.ir.types import DType

F32, F64, I64, BOOL = DType.F32, DType.F64, DType.I64, DType.BOOL
n = symbol("n")


def printed(function, arguments, capsys) -> str:
    """What native code prints, which is what the evaluator prints."""
    native = Native(function, machines()[0])
    capsys.readouterr()
    ir.evaluate(ir.Module.of(function), function.name, arguments)
    expected = capsys.readouterr().out
    results = native(arguments)
    assert not isinstance(results, int)
    assert capsys.readouterr().out == expected
    return expected


def show(dtype: DType, array: np.ndarray, capsys, text: str = "{}") -> str:
    given = F32 if dtype is DType.BF16 else dtype

    def body(b, x):
        return _print(b, text, x if given is dtype else b.emit(ir.Cast, x, dtype=dtype))

    function = build("f", [(given, array.shape)], body)
    return printed(function, [array.astype(given.numpy)], capsys)


def _print(b: ir.Builder, text: str, *values: ir.Value) -> list[ir.Value]:
    b.op(ir.Print, *values, text=text)
    return []


@pytest.mark.parametrize("dtype", list(DType))
def test_elements_of_every_type(dtype: DType, capsys) -> None:
    if dtype is DType.BOOL:
        array = np.array([True, False])
    elif dtype.is_float:
        exact = [0, -0.0, 1, -2.5, 2**-20, 61440, np.nan, -np.nan, np.inf, -np.inf]
        # The evaluator keeps bf16 in f32, unrounded.
        array = np.array(exact if dtype is DType.BF16 else [*exact, 1 / 3, 1e-7, 65504])
    else:
        info = np.iinfo(dtype.numpy)
        array = np.array([0, 1, info.max, info.min])
    show(dtype, array, capsys)


def test_the_look_of_numbers(capsys) -> None:
    assert show(F32, np.array([1, 0.1, -22.75, 1e10]), capsys) == "[    1.    0.1 -22.75  1e+10]\n"
    assert show(F64, np.array(2 / 3), capsys) == "0.66666667\n"
    assert show(BOOL, np.array([True, False]), capsys) == "[ True False]\n"
    assert show(I64, np.array(-(2**63)), capsys) == "-9223372036854775808\n"
    subnormal = np.array([6e-8, 1e-5, 65504, -1.5], np.float16)
    text = show(DType.F16, subnormal, capsys)
    assert text == "[ 5.96e-08 1.001e-05  6.55e+04      -1.5]\n"


def test_the_layout_of_tensors(capsys) -> None:
    matrix = show(I64, np.arange(6).reshape(2, 3) * 5, capsys, "values {}, end")
    assert matrix == "values [[ 0  5 10]\n        [15 20 25]], end\n"
    assert show(I64, np.arange(8).reshape(2, 2, 2), capsys) == (
        "[[[0 1]\n  [2 3]]\n\n [[4 5]\n  [6 7]]]\n"
    )
    row = show(I64, np.arange(100), capsys)
    assert max(map(len, row.splitlines())) == 76 and row.splitlines()[1].startswith(" 25 26")
    for shape in ((0,), (2, 0), (3, 1, 0, 2)):
        show(F32, np.zeros(shape), capsys)


def test_large_tensors_are_summarized(capsys) -> None:
    text = show(I64, np.arange(2000), capsys)
    assert text == "[   0    1    2 ... 1997 1998 1999]\n"
    text = show(F32, np.arange(5000.0).reshape(50, 100), capsys)
    assert len(text.splitlines()) == 7 and "..." in text.splitlines()[3]
    show(F32, np.arange(20000.0).reshape(5, 4, 1000), capsys)
    show(F32, np.arange(2048.0).reshape((2,) * 11), capsys)


def test_text_alone_and_many_values(capsys) -> None:
    def body(b, x, y):
        _print(b, "begin")
        _print(b, "é {}; {} and {} ±", x, y, x)
        _print(b, "")
        return []

    function = build("f", [(F32, (n,)), (I64, ())], body)
    text = printed(function, [np.ones(2, np.float32), np.array(7)], capsys)
    assert text == "begin\né [1. 1.]; 7 and [1. 1.] ±\n\n"


def test_a_long_text_is_written_in_pieces(capsys) -> None:
    text = "äöü" * 2000
    assert show(F32, np.array(1.0), capsys, text + "{}") == text + "1.\n"


def test_order_in_loops_and_branches(capsys) -> None:
    """A print in a branch happens where the branch is taken only."""

    def body(b, xs):
        def step(b, carried, slices):
            total = b.emit(ir.Add, carried[0], slices[0])
            _print(b, "total {}", total)
            large = b.emit(ir.Gt, total, b.constant(3, I64))

            def reset(b):
                _print(b, "  reset at {}", total)
                return [b.constant(0, I64)]

            return branch(b, large, reset, lambda b: [total]), []

        _print(b, "begin {}", xs)
        finals, _ = scan(b, step, [b.constant(0, I64)], [xs])
        _print(b, "end {}", *finals)
        return []

    function = build("f", [(I64, (n,))], body)
    text = printed(function, [np.array([2, 1, 3, 4])], capsys)
    assert text.split("\n") == [
        *("begin [2 1 3 4]", "total 2", "total 3", "total 6", "  reset at 6", "total 4"),
        *("  reset at 4", "end 0", ""),
    ]


def test_an_assertion_has_a_code_with_message_and_place() -> None:
    here, there = Location("net.mto", 3, 5), Location("net.mto", 9, 1)

    def body(b, xs):
        def step(b, carried, slices):
            b.location = here
            b.op(ir.Assert, b.emit(ir.Gt, slices[0], b.constant(0.0, F32)), message="positive")
            return [b.emit(ir.Add, carried[0], slices[0])], []

        (total,), _ = scan(b, step, [b.constant(0.0, F32)], [xs])
        b.location = there
        b.op(ir.Assert, b.emit(ir.Lt, total, b.constant(9.0, F32)), message="small")
        return [total]

    function = build("f", [(F32, (3,))], body)
    native = Native(function, machines()[0])
    for values, location, message in (([1, -1, 3], here, "positive"), ([4, 5, 6], there, "small")):
        array = np.array(values, np.float32)
        with pytest.raises(AssertionFailed, match=message) as caught:
            ir.evaluate(ir.Module.of(function), "f", [array])
        assert caught.value.location == location
        code = native([array])
        assert isinstance(code, int)
        found = native.compiled.assertions[code]
        assert (found.message, found.location) == (message, location)
    assert native([np.ones(3, np.float32)])[0] == 3


def test_what_comes_before_a_failure_is_printed(capsys) -> None:
    def body(b, x):
        _print(b, "before")
        b.op(ir.Assert, x, message="no")
        _print(b, "after")
        return [b.constant(1.0, F32)]

    native = Native(build("f", [(BOOL, ())], body), machines()[0])
    assert isinstance(native([np.array(False)]), int)
    assert capsys.readouterr().out == "before\n"
