"""Sums weighted by exponentials on a GPU: one kernel, in which the interpreter of loops finds no
race, and the results are those of the evaluator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mapped_harness import Mapped, check
from ptx_device import PtxDevice
from weighted_programs import function_of, indices, masked, weighted

import mapsto as mt
from mapsto import ir
from mapsto.ir.core import Function, Module
from mapsto.lowering.gpu.kernel import GpuKernel
from mapsto.lowering.gpu.program import assemble, lower_gpu
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.loop_interpreter import LoopError
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import Barrier, For, LoopFunction, Statement, WaitCopies
from mapsto.runtime.devices.registry import OPENERS
from mapsto.runtime.ptxas import assemble_ptx

SLOW = pytest.mark.slow
F16, F32, F64 = ir.DType.F16, ir.DType.F32, ir.DType.F64
AMPERE, SPIRV, SIMULATED = "nvptx64-sm_80", "spirv64", "gpusim"
ODD = (17, 7), (21, 7), (21, 7)
EVEN = (32, 16), (64, 16), (64, 16)


def sums(b: ir.Builder, q, k, v):
    """The sums and, negated, the totals."""
    parts = weighted(b, q, k, v, masked)
    return [parts.result, b.emit(ir.Neg, parts.total)]


def given(function: Function) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [
        random.normal(size=a.shape).astype(a.dtype.numpy, copy=False) for a in function.arguments
    ]


def agree(mapped: Mapped, tolerance: float) -> None:
    arguments = given(mapped.function)
    original = Module.of(mapped.function)
    expected = ir.evaluate(original, mapped.function.name, arguments)
    results = mapped(arguments)
    assert isinstance(results, list)
    for found, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(
            found.astype(np.float64), wanted.astype(np.float64), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("target", [pytest.param(SIMULATED, marks=SLOW), SPIRV])
def test_tails_without_races(target: str) -> None:
    mapped = Mapped(function_of(sums, *ODD), target)
    assert len(mapped.kernels) == 2, "the sums, and the totals negated"
    agree(mapped, 1e-5)


@SLOW
@pytest.mark.parametrize("shapes", [ODD, EVEN])
def test_matrix_instructions(shapes: tuple[tuple[int, ...], ...]) -> None:
    agree(Mapped(function_of(sums, *shapes, dtype=F16), AMPERE), 4e-3)


def _first(
    body: tuple[Statement, ...], kind: type[Statement], number: int
) -> tuple[Statement, ...]:
    """The statements without one of a kind in the loop over steps."""
    result: list[Statement] = []
    for statement in body:
        if isinstance(statement, For):
            inner = _first(statement.body, kind, number)
            if statement.variable == "step":
                chosen = [s for s in statement.body if isinstance(s, kind)][number]
                inner = tuple(s for s in statement.body if s is not chosen)
            statement = replace(statement, body=inner)
        result.append(statement)
    return tuple(result)


class Defective(Mapped):
    """Without the statement of a kind and number in the loop over steps."""

    def __init__(self, function: Function, target: str, kind: type[Statement], number: int) -> None:
        super().__init__(function, target)
        self.kernels = {
            loops: tuple(self._changed(kernel, kind, number) for kernel in kernels)
            for loops, kernels in self.kernels.items()
        }

    @staticmethod
    def _changed(kernel: GpuKernel, kind: type[Statement], number: int) -> GpuKernel:
        loops: LoopFunction = kernel.loops
        return replace(kernel, loops=replace(loops, body=_first(loops.body, kind, number)))


@pytest.mark.parametrize(
    ("target", "kind", "number"),
    [(AMPERE, Barrier, 0), (AMPERE, Barrier, 1), (AMPERE, WaitCopies, 0), (SPIRV, Barrier, 1)],
)
def test_what_is_missing_is_found(target: str, kind: type[Statement], number: int) -> None:
    function = function_of(lambda b, q, k, v: weighted(b, q, k, v).sums, *EVEN)
    defective = Defective(function, target, kind, number)
    with pytest.raises(LoopError, match=r"by thread|before it is written"):
        defective(given(function))


# ---- on the simulated device


@pytest.mark.parametrize("dtype", [F32, F64, F16], ids=str)
def test_types(dtype: ir.DType) -> None:
    mapped = check(function_of(sums, (2, 3, 33, 12), (2, 3, 70, 12), (2, 3, 70, 8), dtype=dtype))
    assert len(mapped.kernels) == 2


def test_keys_that_come_first() -> None:
    def body(b, q, k, v):
        return weighted(b, q, k, v, keys_last=False).result

    mapped = check(function_of(body, (40, 8), (8, 50), (50, 16)))
    assert len(mapped.kernels) == 1


def test_numbers_that_are_none() -> None:
    """A row of scores that are all infinitely small, or one of which is infinite or no number, has
    no number as its sums; a row that begins with such has."""

    def body(b, q, k, v, bias):
        parts = weighted(b, q, k, v, lambda b, fits: b.emit(ir.Add, fits, bias))
        return [parts.result, parts.total]

    function = function_of(body, (20, 4), (90, 4), (90, 8), (20, 90))
    arguments = given(function)
    bias = arguments[3]
    bias[1], bias[2, :70], bias[3, 75], bias[4, 3] = -np.inf, -np.inf, np.inf, np.nan
    ((result, _),) = [ir.evaluate(Module.of(function), "f", arguments)]
    assert [row for row in range(20) if np.isnan(result[row]).all()] == [1, 3, 4]
    check(function, arguments)


UNSEEN = (24, 8), (130, 8), (130, 8)


def has_phases(mapped: Mapped) -> bool:
    """Whether keys that no row sees are gone over apart."""
    loops = [s for ks in mapped.kernels.values() for k in ks for s in statements(k.loops.body)]
    return any(isinstance(loop, For) and loop.variable == "phase" for loop in loops)


def causal(b: ir.Builder, q, k, v):
    return weighted(b, q, k, v, masked).result


@pytest.mark.parametrize("case", ["plain", "no number beyond", "all scores far below"])
def test_keys_that_no_row_sees(case: str) -> None:
    """They are left out, unless they count: where a value is no number, or the row's scores are
    less than theirs."""
    function = function_of(causal, *UNSEEN)
    q, k, v = given(function)
    if case == "no number beyond":
        v[120, 2], v[110, 5] = np.nan, np.inf
    if case == "all scores far below":
        q, k = -1e3 * abs(q), 1e3 * abs(k)
    (expected,) = ir.evaluate(Module.of(function), "f", [q, k, v])
    assert np.isnan(expected).any() == (case == "no number beyond")
    assert has_phases(check(function, [q, k, v]))


def select_by(compare: type, constant: float, flipped: bool, mask: bool = False):
    """Scores of which those after a row's own number are a constant."""

    def score(b: ir.Builder, fits: ir.Value) -> ir.Value:
        row, key = indices(b, fits.shape, 0), indices(b, fits.shape, 1)
        shifted = b.emit(ir.Add, row, b.like(3, row))
        other = b.like(constant, fits)
        branches = (other, fits) if flipped else (fits, other)
        scores = b.emit(ir.Select, b.emit(compare, key, shifted), *branches)
        if not mask:
            return scores
        even = b.emit(ir.Eq, b.emit(ir.Mod, key, b.like(2, key)), b.like(0, key))
        return b.emit(ir.Select, even, scores, b.like(-2e4, scores))

    return lambda b, q, k, v: weighted(b, q, k, v, score).result


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (select_by(ir.Lt, -1e5, False), True),
        (select_by(ir.Gt, -1e5, True), True),
        (select_by(ir.Le, -1e5, False, mask=True), True),
        (select_by(ir.Ge, -1e5, False), False),
        (select_by(ir.Le, -1.0, False), False),
    ],
)
def test_what_rows_see(body, found: bool) -> None:
    function = function_of(body, *UNSEEN)
    assert has_phases(check(function) if found else Mapped(function, SIMULATED)) == found


PROGRAM = """
map near(x: f32[n, d], y: f32[m, d], v: f32[m, k]) -> f32[n, k]:
    "Means of values whose weights fall with the distance (Nadaraya, 1964; Watson, 1964)."
    let closeness = [i, j] |-> sum[c](x[i, c] * y[j, c]) - 0.5 * sum[c](y[j, c] * y[j, c])
    let top = [i] |-> max[j](closeness[i, j])
    let weight = [i, j] |-> exp(closeness[i, j] - top[i])
    [i, c] |-> sum[j](weight[i, j] * v[j, c]) / sum[j](weight[i, j])

map grouped(q: f32[n, 6, t, 8], k: f32[n, 3, s, 8], v: f32[n, 3, s, 8]) -> f32[n, 6, t, 8]:
    grouped_attention(q, k, v, causal=true)

map rounded(q: f32[b, t, d], k: f32[b, s, d], v: f32[b, s, d]) -> f32[b, t, d]:
    in_precision(attention, bf16)(q, k, v)

map seen(q: f32[b, t, d], k: f32[b, s, d], v: f32[b, s, d], kept: bool[b, s]) -> f32[b, t, d]:
    attention(q, k, v, reshape(kept, [b, 1, s]))
"""
SIZES = {
    "near": [(40, 12), (70, 12), (70, 5)],
    "grouped": [(2, 6, 33, 8), (2, 3, 40, 8), (2, 3, 40, 8)],
    "rounded": [(2, 20, 16), (2, 40, 16), (2, 40, 16)],
    "seen": [(3, 35, 16), (3, 50, 16), (3, 50, 16)],
}


def arrays(name: str) -> list[np.ndarray]:
    random = np.random.default_rng(2)
    found = [random.normal(size=shape).astype(np.float32) for shape in SIZES[name]]
    return [*found, random.random((3, 50)) < 0.5] if name == "seen" else found


@pytest.mark.parametrize("name", ["near", "grouped", "rounded", pytest.param("seen", marks=SLOW)])
def test_whoever_writes_it(name: str) -> None:
    lib, inputs = mt.loads(PROGRAM), arrays(name)
    mapped = getattr(lib, name).to("gpusim")
    expected = getattr(lib, name)(*inputs)
    loose = 2e-2 if name == "rounded" else 1e-5
    np.testing.assert_allclose(np.asarray(mapped(*inputs)), expected, rtol=loose, atol=loose)


# ---- as PTX


def text_of(function: Function, target: GpuTarget) -> str:
    return assemble(lower_gpu(Module.of(function), "f", target)).decode()


@pytest.mark.parametrize(
    ("architecture", "dtype", "tf32"),
    [
        (80, F32, False),
        (80, F16, False),
        pytest.param(80, F32, True, marks=SLOW),
        pytest.param(75, F16, False, marks=SLOW),
    ],
)
def test_the_interpreter_of_ptx(
    architecture: int, dtype: ir.DType, tf32: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds races, reads of what nothing wrote, and copies that were not waited for."""
    device = PtxDevice(architecture)
    monkeypatch.setitem(OPENERS, "ptx", lambda number: device)
    text = PROGRAM.replace("f32", str(dtype))
    lib = mt.loads(text, mt.Options(tf32=tf32))
    inputs = [a if a.dtype == bool else a.astype(dtype.numpy) for a in arrays("seen")]
    expected = lib.seen(*inputs).astype(np.float32)
    found = np.asarray(lib.seen.to(f"ptx:{architecture}")(*inputs)).astype(np.float32)
    loose = 1e-5 if dtype is F32 and not tf32 else 4e-3
    np.testing.assert_allclose(found, expected, rtol=loose, atol=loose)
    assert len(device.launched) == 1


LARGE = (4, 512, 64), (4, 512, 64), (4, 512, 64)


def large(b: ir.Builder, q, k, v):
    return weighted(b, q, k, v, masked).result


@pytest.mark.parametrize("dtype", [F32, F16], ids=str)
def test_copies_and_matrix_instructions(dtype: ir.DType) -> None:
    target = GpuTarget.named(AMPERE).with_tf32()
    text = text_of(function_of(large, *LARGE, dtype=dtype), target)
    kind = "k8.row.col.f32.tf32" if dtype is F32 else "k16.row.col.f32.f16"
    assert f"mma.sync.aligned.m16n8{kind}" in text
    assert "cp.async.cg.shared.global" in text
    assert ".local" not in text, "scores, weights and sums stay in registers"


@pytest.mark.ptxas
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("dtype", [F32, F16], ids=str)
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("width", [64, 128])
def test_registers_suffice(architecture: str, dtype: ir.DType, tf32: bool, width: int) -> None:
    target = GpuTarget.named(f"nvptx64-{architecture}").with_tf32(tf32)
    shapes = [(*shape[:2], width) for shape in LARGE]
    found = assemble_ptx(text_of(function_of(large, *shapes, dtype=dtype), target), architecture)
    (resources,) = found.resources.values()
    assert resources.spill_stores == resources.spill_loads == resources.stack_bytes == 0
