"""Python entry points: exact results, every mismatch refused, nothing leaked, safe in threads."""

import gc
import subprocess
import sys
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
from runtime_programs import (
    RELU_SCALE,
    RELU_SCALE_SIGNATURE,
    STEP,
    STEP_SIGNATURE,
    WINDOWS,
    N,
    spec,
    windows_signature,
)

from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime import function as function_module
from mapsto.runtime.errors import ArgumentError, ExecutionError
from mapsto.runtime.function import NativeFunction
from mapsto.runtime.jit import compile_module
from mapsto.runtime.numpy_abi import layout_is_known
from mapsto.runtime.signature import Argument, Signature

WEIGHTS = np.array([1.5, -2, 0.25, 3], np.float32)


@pytest.fixture(params=["generated", "ctypes", "generated, GIL held"])
def forward(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> NativeFunction:
    monkeypatch.setattr(function_module, "layout_is_known", lambda: request.param != "ctypes")
    signature = replace(RELU_SCALE_SIGNATURE, release_gil="held" not in request.param)
    compiled = compile_module(RELU_SCALE, Machine.host())
    return NativeFunction(compiled, "forward", signature, [WEIGHTS.copy()])


def make(text: str, name: str, signature: Signature, *bound: np.ndarray) -> NativeFunction:
    return NativeFunction(compile_module(text, Machine.host()), name, signature, bound)


def test_the_layout_of_this_numpy_is_known() -> None:
    assert layout_is_known()


@pytest.mark.parametrize("rows", [1, 2, 5, 1000, 3])
def test_results_are_exact(forward: NativeFunction, rows: int) -> None:
    x = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)
    y = forward(x)
    assert type(y) is np.ndarray
    assert y.dtype == np.float32
    assert y.tobytes() == (np.maximum(x, 0) * WEIGHTS).tobytes()


@pytest.mark.parametrize(
    "bad",
    [
        (),
        (np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32)),
        (np.zeros((2, 4), np.float64),),
        (np.zeros((2, 4), ">f4"),),
        (np.zeros((2, 5), np.float32),),
        (np.zeros(4, np.float32),),
        (np.zeros((2, 2, 4), np.float32),),
        (np.zeros((4, 2), np.float32).T,),
        (np.zeros((4, 4), np.float32)[::2],),
        (np.zeros(33, np.uint8)[1:].view(np.float32).reshape(2, 4),),
        (np.zeros((2, 4), np.float32).view(np.matrix),),
        (np.ma.zeros((2, 4), np.float32),),
        ([[1.0, 2.0, 3.0, 4.0]],),
        (None,),
        (3,),
        ("text",),
    ],
)
def test_fast_refuses_all_but_exact_arguments(bad: tuple[object, ...]) -> None:
    function = make(RELU_SCALE, "forward", RELU_SCALE_SIGNATURE, WEIGHTS)
    assert function.fast(*bad) is NotImplemented


def test_fitting_values_are_converted(forward: NativeFunction) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    expected = (x * WEIGHTS).tolist()
    swapped, strided = x.astype(">f4"), np.asfortranarray(x)
    for value in (x, swapped, strided, x.tolist(), memoryview(x), x.view(np.matrix), Exporter(x)):
        assert forward(value).tolist() == expected


class Exporter:
    """An array of another library: DLPack only."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected 1 arguments (x), found 0"),
        ((np.zeros((32, 4)),), "expected x: f32[n, 4], found f64[32, 4]"),
        ((np.zeros((32, 5), np.float32),), "expected x: f32[n, 4], found f32[32, 5]"),
        ((np.zeros(4, np.float32),), "expected x: f32[n, 4], found f32[4]"),
        ((np.zeros((1, 4), complex),), "expected x: f32[n, 4], found complex128[1, 4]"),
        ((object(),), "expected x: f32[n, 4], found object: not an array"),
    ],
)
def test_other_arguments_are_explained(
    forward: NativeFunction, arguments: tuple[object, ...], message: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        forward(*arguments)
    assert str(caught.value) == message


def test_named_sizes_must_agree() -> None:
    signature = Signature(
        (Argument(spec("a", N)), Argument(spec("b", N)), Argument(spec("c", 2 * N))), ()
    )
    text = (
        "define i32 @f(ptr %b, ptr %d, ptr %a) {\n  ret i32 0\n}\n"
        "define i64 @f.arena_bytes(ptr %d) {\n  ret i64 0\n}\n"
    )
    function = make(text, "f", signature)
    three, four, six = (np.zeros(k, np.float32) for k in (3, 4, 6))
    assert function.fast(three, three, six) is None
    assert function.fast(three, four, six) is NotImplemented
    assert function.fast(three, three, four) is NotImplemented
    with pytest.raises(ArgumentError, match=r"b: f32\[n\] with n = 3 as in a, found f32\[4\]"):
        function(three, four, six)
    with pytest.raises(ArgumentError, match=r"c: f32\[2\*n\] with 2\*n = 6, found f32\[4\]"):
        function(three, three, four)


@pytest.mark.parametrize("known", [True, False])
def test_composite_result_shapes(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_module, "layout_is_known", lambda: known)
    function = make(WINDOWS, "windows", windows_signature())
    y, z = function(np.zeros(7, np.int64), np.zeros(3, np.int64))
    assert (y.shape, z.shape, y[0]) == ((5,), (2, 2), 7)
    y, z = function(np.zeros(2, np.int64), np.zeros(3, np.int64))
    assert (y.shape, z.shape) == ((0,), (0, 2))
    for h, r in [(1, 3), (3, 0)]:
        arrays = np.zeros(h, np.int64), np.zeros(r, np.int64)
        assert function.fast(*arrays) is NotImplemented
        with pytest.raises(ArgumentError, match="negative or too large"):
            function(*arrays)


def test_bound_arrays_are_updated_in_place() -> None:
    w = WEIGHTS.copy()
    step = make(STEP, "step", STEP_SIGNATURE, w)
    x = np.ones(4, np.float32)
    assert [float(step(x)) for _ in range(3)] == [1.5, 2.5, 3.5]
    assert w.tolist() == (WEIGHTS + 3).tolist()
    other = np.zeros(4, np.float32)
    step.rebind(0, other)
    step(x)
    assert other.tolist() == [1, 1, 1, 1]
    assert w.tolist() == (WEIGHTS + 3).tolist()


def test_bound_arrays_must_fit() -> None:
    for bad in ([], [WEIGHTS, WEIGHTS], [WEIGHTS[:3]], [WEIGHTS.astype(float)], [WEIGHTS[::-1]]):
        with pytest.raises(ArgumentError):
            make(STEP, "step", STEP_SIGNATURE, *bad)
    step = make(STEP, "step", STEP_SIGNATURE, WEIGHTS.copy())
    with pytest.raises(ArgumentError):
        step.rebind(0, WEIGHTS[:2])
    frozen = WEIGHTS.copy()
    frozen.flags.writeable = False
    with pytest.raises(ArgumentError, match="writeable"):
        step.rebind(0, frozen)
    forward = make(RELU_SCALE, "forward", RELU_SCALE_SIGNATURE, frozen)
    assert forward(np.ones((1, 4), np.float32)).tolist() == [WEIGHTS.tolist()]


def test_an_error_code_raises(forward: NativeFunction) -> None:
    step = make(STEP, "step", STEP_SIGNATURE, WEIGHTS.copy())
    with pytest.raises(ExecutionError, match="NaN") as caught:
        step(np.full(4, np.nan, np.float32))
    assert caught.value.code == 3
    assert step(np.zeros(4, np.float32)) == 1.5


def test_exclusive_calls_wait_for_each_other() -> None:
    w = np.zeros(4, np.float32)
    step = make(STEP, "step", STEP_SIGNATURE, w)
    x = np.ones(4, np.float32)
    in_threads(lambda: [step(x) for _ in range(2000)])
    assert w.tolist() == [8000] * 4


def test_calls_from_several_threads_do_not_share_memory(forward: NativeFunction) -> None:
    results: list[bool] = []

    def call() -> None:
        x = np.random.default_rng(threading.get_ident()).normal(size=(50, 4)).astype(np.float32)
        expected = (np.maximum(x, 0) * WEIGHTS).tobytes()
        results.append(all(forward(x).tobytes() == expected for _ in range(200)))

    in_threads(call)
    assert results == [True] * 4


def in_threads(work: object) -> None:
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_c_function_lives_and_dies_alone() -> None:
    class Watched(np.ndarray):
        pass

    weights = WEIGHTS.copy().view(Watched)
    watch = weakref.ref(weights)
    fast = make(RELU_SCALE, "forward", RELU_SCALE_SIGNATURE, weights).fast
    del weights
    gc.collect()
    x = np.ones((2, 4), np.float32)
    assert fast(x).tolist() == [WEIGHTS.clip(min=-9).tolist()] * 2
    assert watch() is not None
    del fast
    gc.collect()
    assert watch() is None


def test_calls_leak_no_references() -> None:
    function = make(RELU_SCALE, "forward", RELU_SCALE_SIGNATURE, WEIGHTS)
    good, bad = np.ones((2, 4), np.float32), np.ones((2, 4))
    function.fast(good)
    objects = (good, bad, None, NotImplemented, np.dtype(np.float32), np.ndarray)
    before = [sys.getrefcount(value) for value in objects]
    for _ in range(1000):
        function.fast(good)
        function.fast(bad)
    after = [sys.getrefcount(value) for value in objects]
    assert max(abs(b - a) for a, b in zip(before, after, strict=True)) < 10


def test_all_element_types_pass() -> None:
    for dtype in DType:
        if dtype in (DType.BF16, DType.F16):
            continue
        signature = Signature((Argument(spec("x", N, dtype=dtype)),), (spec("y", N, dtype=dtype),))
        size = dtype.bytes
        text = f"""
define i64 @copy.arena_bytes(ptr %d) {{
  ret i64 0
}}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define i32 @copy(ptr %b, ptr %d, ptr %a) {{
  %x = load ptr, ptr %b
  %y.ptr = getelementptr ptr, ptr %b, i64 1
  %y = load ptr, ptr %y.ptr
  %n = load i64, ptr %d
  %size = mul i64 %n, {size}
  call void @llvm.memcpy.p0.p0.i64(ptr %y, ptr %x, i64 %size, i1 false)
  ret i32 0
}}
"""
        x = np.array([0, 1, 1, 0, 1]).astype(dtype.numpy)
        y = make(text, "copy", signature).fast(x)
        assert y.dtype == dtype.numpy
        assert y.tobytes() == x.tobytes()


def test_signatures_that_cannot_be_called() -> None:
    with pytest.raises(ValueError, match="no argument says what the size n is"):
        Signature((Argument(spec("x", 2 * N)),), ())
    with pytest.raises(ValueError, match="needs a fixed shape"):
        Signature((Argument(spec("w", N), bound=True), Argument(spec("x", N))), ())
    with pytest.raises(ValueError, match="no bf16 arrays"):
        Signature((Argument(spec("x", dtype=DType.BF16)),), ())


def test_the_interpreter_ends_cleanly_with_functions_and_workers_alive() -> None:
    script = """
import sys; sys.path.insert(0, sys.argv[1])
import numpy as np
from runtime_programs import RELU_SCALE, RELU_SCALE_SIGNATURE
from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime.function import NativeFunction
from mapsto.runtime.jit import compile_module
compiled = compile_module(RELU_SCALE, Machine.host())
weights = np.ones(4, np.float32)
function = NativeFunction(compiled, "forward", RELU_SCALE_SIGNATURE, [weights])
kept = [function, function.fast]
for _ in range(100):
    function(np.ones((64, 4), np.float32))
"""
    command = [sys.executable, "-c", script, __file__.rpartition("/")[0]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# ---- results into arrays that the caller gives


def test_results_go_into_given_arrays(forward: NativeFunction) -> None:
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    out = np.full((5, 4), np.nan, np.float32)
    forward.into([x], [out])
    assert out.tobytes() == (np.maximum(x, 0) * WEIGHTS).tobytes()
    found = forward.fast_into(x + 1, out)
    assert found is out
    assert out.tobytes() == (np.maximum(x + 1, 0) * WEIGHTS).tobytes()


ROOM = np.zeros((4, 4), np.float32)
READ_ONLY = np.zeros((2, 4), np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ([[0.0] * 4] * 2, "expected a NumPy array for y: f32.2, 4., found list"),
        (np.zeros((3, 4), np.float32), "expected an array for y: f32.2, 4., found f32.3, 4."),
        (np.zeros((2, 4), np.float64), "found f64.2, 4."),
        (np.zeros((2, 4), ">f4"), "found >f4.2, 4."),
        (np.zeros((4, 2), np.float32).T, "dense, aligned, writeable"),
        (READ_ONLY, "dense, aligned, writeable"),
        (ROOM[:2], "the array for y shares memory with the argument x"),
        (ROOM[1:3], "the array for y shares memory with the argument x"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    forward: NativeFunction, out: object, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        forward.into([ROOM[:2]], [out])
    assert not ROOM.any()


def test_results_do_not_go_into_bound_arrays() -> None:
    bound = np.arange(8, dtype=np.float32)
    forward = make(RELU_SCALE, "forward", RELU_SCALE_SIGNATURE, bound[2:6])
    x = np.ones((1, 4), np.float32)
    for start in range(5):
        out = bound[start : start + 4].reshape(1, 4)
        with pytest.raises(ArgumentError, match="shares memory with the parameter"):
            forward.into([x], [out])
    forward.into([x], [np.empty((1, 4), np.float32)])
    beside = np.zeros(12, np.float32)
    beside[4:8] = bound[2:6]
    forward.rebind(0, beside[4:8])
    forward.into([x], [beside[:4].reshape(1, 4)])
    forward.into([x], [beside[8:].reshape(1, 4)])
    assert np.array_equal(beside, np.tile(beside[4:8].clip(0) * 0 + beside[4:8], 3))


def test_given_arrays_are_neither_kept_nor_lost() -> None:
    forward = make(RELU_SCALE, "forward", RELU_SCALE_SIGNATURE, WEIGHTS.copy())
    x, out = np.ones((2, 4), np.float32), np.empty((2, 4), np.float32)
    forward.into([x], [out])
    before = sys.getrefcount(out), sys.getrefcount(x)
    for _ in range(100):
        forward.fast_into(x, out)
        assert forward.fast_into(x, x) is NotImplemented
    assert (sys.getrefcount(out), sys.getrefcount(x)) == before
    into = forward.fast_into
    del forward
    gc.collect()
    assert into(x, out) is out
