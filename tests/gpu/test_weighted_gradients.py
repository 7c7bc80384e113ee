"""Gradients of sums weighted by exponentials on a GPU: no kernel has the matrix of weights in
memory, the interpreters of loops and of PTX find no race, and the results are those of the
evaluator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gradient_programs import gradients, matrices, program, training_step
from mapped_harness import Mapped, Simulated
from ptx_device import PtxDevice
from weighted_programs import function_of, indices

import mapsto as mt
from mapsto import ir
from mapsto.ir.core import Function, Module
from mapsto.ir.fusion import fuse_function
from mapsto.ir.ops.contraction import contract
from mapsto.ir.product_sums import ProductSums
from mapsto.ir.stages import find_stages
from mapsto.lowering.gpu.program import assemble, lower_gpu
from mapsto.lowering.gpu.scheduling import gpu_scheduling
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.kernels import weighted_sums
from mapsto.lowering.loop_interpreter import LoopError
from mapsto.lowering.loop_printer import loop_text
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import Barrier, For, Statement, WaitCopies
from mapsto.runtime.devices.registry import OPENERS
from mapsto.runtime.ptxas import assemble_ptx

SLOW = pytest.mark.slow
AMPERE, SPIRV = "nvptx64-sm_80", "spirv64"
SMALL = """
train Step(net = GPT(11, 48, 32, layers=3, heads=2), optimizer = SGD(lr=0.1)):
    loss(ids: i32[n, t], y: i32[n, t]) = cross_entropy(net(ids), y)
"""
GPT = Path(__file__).parents[2] / "benchmarks" / "models" / "gpt.mto"


def fused(function: Function, target: str) -> Function:
    """The function in kernels, as a target has it."""
    scheduling = gpu_scheduling(GpuTarget.named(target))
    assert scheduling.weighted is not None
    return fuse_function(scheduling.arrange(function), scheduling.weighted.takes)


def product_kernels(function: Function) -> int:
    """How many kernels weight by what they compute from products."""
    blocks = [op.regions[0].block for op in function.block.operations if op.name == "kernel"]
    sums = [weighted_sums(block, find_stages(block)) for block in blocks]
    return sum(isinstance(found, ProductSums) for found in sums)


def given(function: Function) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [
        random.normal(size=a.shape).astype(a.dtype.numpy, copy=False) for a in function.arguments
    ]


def agree(
    mapped: Mapped, arguments: list[np.ndarray], tolerance: float, chosen: slice = slice(None)
) -> list[np.ndarray]:
    function = mapped.function
    expected = ir.evaluate(Module.of(function), function.name, arguments)
    results = mapped([array.copy() for array in arguments])
    assert isinstance(results, list)
    for found, wanted in zip(results[chosen], expected[chosen], strict=True):
        np.testing.assert_allclose(
            found.astype(np.float64), wanted.astype(np.float64), rtol=tolerance, atol=tolerance
        )
    return results


def phases(mapped: Mapped) -> int:
    """In how many kernels keys that no row sees are gone over apart."""
    bodies = [kernel.loops.body for ks in mapped.kernels.values() for kernel in ks]
    loops = (s for body in bodies for s in statements(body))
    return sum(isinstance(loop, For) and loop.variable == "phase" for loop in loops)


# ---- on the simulated device


def test_what_no_row_sees() -> None:
    """Its parts are left out, unless they count: where a value is no number, or weights are not
    zero since all scores are far below that of what is hidden."""
    function = gradients("of_causal", (1, 40, 8), (1, 70, 8), 8)
    mapped = Simulated(function)
    assert phases(mapped) == 4, "the sums, and the gradients by queries, keys and values"
    q, k, v, w = given(function)
    agree(mapped, [q, k, v, w], 1e-5)
    v[0, 69, 2], w[0, 3, 1] = np.nan, np.inf
    *_, by_keys, by_values = agree(mapped, [q, k, v, w], 1e-5)
    assert np.isnan(by_keys).any() and np.isnan(by_values).any()
    # What is left of the others' gradients is rounding, times such numbers.
    far = [-1e16 * abs(q), 1e16 * abs(k), *given(function)[2:]]
    *_, by_values = agree(mapped, far, 1e-5, slice(None, None, 4))
    assert np.count_nonzero(by_values[0, 69]) == 8


@pytest.mark.parametrize("dtype", ["f32", pytest.param("f16", marks=SLOW)])
def test_whoever_writes_it(dtype: str) -> None:
    function = gradients("of_near", (2, 17, 5), (2, 21, 5), 7, dtype)
    found = fused(function, "gpusim")
    assert (product_kernels(found), matrices(found, 17, 21)) == (3, 0)
    agree(Simulated(function), given(function), 2e-2 if dtype == "f16" else 1e-5)


@SLOW
def test_heads_that_share_keys() -> None:
    """Gradients of keys and values are sums over the queries of several heads."""
    function = gradients("of_shared", (1, 4, 64, 8), (1, 2, 90, 8), 8)
    mapped = Simulated(function)
    assert phases(mapped) == 2, "for queries of several heads keys do not end once"
    agree(mapped, given(function), 1e-5)


# ---- which kernels there are


def test_heads_may_share_keys() -> None:
    found = fused(gradients("of_shared", (2, 4, 32, 8), (2, 2, 48, 8), 8), AMPERE)
    assert (product_kernels(found), matrices(found, 32, 48)) == (3, 0)


def test_a_step_of_gpt_writes_no_matrix(tmp_path: Path) -> None:
    """Nor the mask; each layer has three kernels of gradients, beside that of the sums."""
    file = tmp_path / "small.mto"
    file.write_text(f'from "{GPT}" import GPT\n{SMALL}')
    function = training_step(f"{file}:Step", n=4, t=48)
    found = fused(function, AMPERE)
    assert (product_kernels(found), matrices(found, 48, 48)) == (9, 0)
    assert matrices(fuse_function(function), 48, 48) > 0


def test_a_matrix_that_is_a_result_stays() -> None:
    text = (
        program("f32")
        + """
map weights(q: f32[t, d], k: f32[s, d]): softmax([i, j] |-> sum[c](q[i, c] * k[j, c]))
map cost_of(q: f32[t, d], k: f32[s, d], v: f32[s, e]):
    let found = weights(q, k)
    (sum((found @ v)^2), found)
map both(q: f32[t, d], k: f32[s, d], v: f32[s, e]):
    value_and_grad(cost_of, has_aux=true)(q, k, v)
"""
    )
    shapes = {"q": mt.f32[32, 8], "k": mt.f32[48, 8], "v": mt.f32[48, 8]}
    elaborated = mt.loads(text).both.elaborate(shapes, {})
    function = mt.compiler.optimized(elaborated.module, mt.Options())[elaborated.entry]
    assert product_kernels(fused(function, AMPERE)) == 0


# ---- one kernel, by the interpreter of loops


def one_kernel(along: str, *, dtype: ir.DType = ir.DType.F32, size: int = 32) -> Function:
    """The gradient of weighted sums by the queries (sums along keys) or by the keys."""

    def body(b: ir.Builder, q, k, v, w, top, delta):
        maps = [ir.projection([0, 2], 3), ir.projection([1, 2], 3)]
        shape = (q.shape[0], k.shape[0])
        fits = contract(b, [q, k], maps, (*shape, q.shape[1]), 2)
        slopes = contract(b, [w, v], maps, (*shape, v.shape[1]), 2)
        seen = b.emit(ir.Le, indices(b, shape, 1), indices(b, shape, 0))

        def rows(x: ir.Value) -> ir.Value:
            return b.emit(ir.Broadcast, x, shape=shape, dims=(0,))

        weights = b.emit(ir.Exp, b.emit(ir.Sub, fits, rows(top)))
        product = b.emit(ir.Mul, b.emit(ir.Sub, slopes, rows(delta)), weights)
        matrix = b.emit(ir.Select, seen, product, b.like(0, product))
        own, other = (0, 1) if along == "keys" else (1, 0)
        maps = [ir.projection([0, 2][:: 1 if own == 0 else -1], 3), ir.projection([2, 1], 3)]
        values = k if along == "keys" else q
        extents = shape[own], values.shape[1], shape[other]
        return contract(b, [matrix, values], maps, extents, 2)

    shapes = [(size, 16), (2 * size, 16), (2 * size, 16), (size, 16), (size,), (size,)]
    return function_of(body, *shapes, dtype=dtype)


def _without(body: tuple[Statement, ...], kind: type[Statement], number: int) -> tuple:
    """The statements without one of a kind in the loop over steps."""
    result: list[Statement] = []
    for statement in body:
        if isinstance(statement, For):
            inner = _without(statement.body, kind, number)
            if statement.variable == "step":
                chosen = [s for s in statement.body if isinstance(s, kind)][number]
                inner = tuple(s for s in statement.body if s is not chosen)
            statement = replace(statement, body=inner)
        result.append(statement)
    return tuple(result)


@pytest.mark.parametrize(
    ("target", "kind", "number"),
    [
        (AMPERE, Barrier, 0),
        pytest.param(AMPERE, Barrier, 1, marks=SLOW),
        pytest.param(AMPERE, WaitCopies, 0, marks=SLOW),
        pytest.param(SPIRV, Barrier, 1, marks=SLOW),
    ],
)
@pytest.mark.parametrize("along", ["keys", pytest.param("rows", marks=SLOW)])
def test_what_is_missing_is_found(
    along: str, target: str, kind: type[Statement], number: int
) -> None:
    mapped = Mapped(one_kernel(along), target)
    mapped.kernels = {
        loops: tuple(
            replace(k, loops=replace(k.loops, body=_without(k.loops.body, kind, number)))
            for k in kernels
        )
        for loops, kernels in mapped.kernels.items()
    }
    with pytest.raises(LoopError, match=r"by thread|before it is written"):
        mapped(given(mapped.function))


@SLOW
@pytest.mark.parametrize("along", ["keys", "rows"])
@pytest.mark.parametrize(("target", "dtype"), [(SPIRV, "F32"), (AMPERE, "F16")])
def test_without_races(along: str, target: str, dtype: str) -> None:
    function = one_kernel(along, dtype=ir.DType[dtype], size=17)
    mapped = Mapped(function, target)
    assert len(mapped.kernels) == 1
    agree(mapped, given(function), 1e-4 if dtype == "F32" else 1e-1)


# ---- as PTX


@pytest.mark.parametrize(
    ("architecture", "dtype", "tf32"),
    [
        (80, "f16", False),
        pytest.param(80, "f32", False, marks=SLOW),
        pytest.param(80, "f32", True, marks=SLOW),
        pytest.param(75, "f16", False, marks=SLOW),
    ],
)
def test_the_interpreter_of_ptx(
    architecture: int, dtype: str, tf32: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds races, reads of what nothing wrote, and copies that were not waited for."""
    device = PtxDevice(architecture)
    monkeypatch.setitem(OPENERS, "ptx", lambda number: device)
    lib = mt.loads(program(dtype), mt.Options(tf32=tf32))
    random = np.random.default_rng(2)
    shapes = (2, 20, 16), (2, 40, 16), (2, 40, 16), (2, 20, 16)
    inputs = [(random.normal(size=s) / 2).astype(dtype.replace("f", "float")) for s in shapes]
    (_, result), gradient = lib.of_causal(*inputs)
    (_, found), computed = lib.of_causal.to(f"ptx:{architecture}")(*inputs)
    loose = 1e-5 if dtype == "f32" and not tf32 else 1e-2
    for left, right in zip((found, *computed), (result, *gradient), strict=True):
        wanted = np.asarray(right).astype(np.float32)
        np.testing.assert_allclose(np.asarray(left).astype(np.float32), wanted, loose, loose)
    loops = [kernel.gpu.loops for kernel in device.launched]
    assert sum("products0" in loop_text(each) for each in loops) == 3


@pytest.mark.ptxas
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize(
    ("dtype", "tf32", "width"),
    [("f32", False, 64), ("f16", False, 64), ("f16", False, 128), ("f32", True, 128)],
)
def test_registers_suffice(architecture: str, dtype: str, tf32: bool, width: int) -> None:
    shape = (4, 512, width)
    function = gradients("of_causal", shape, shape, width, dtype)
    target = GpuTarget.named(f"nvptx64-{architecture}").with_tf32(tf32)
    text = assemble(lower_gpu(Module.of(function), function.name, target)).decode()
    for resources in assemble_ptx(text, architecture).resources.values():
        assert resources.spill_stores == resources.spill_loads == resources.stack_bytes == 0
