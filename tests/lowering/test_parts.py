"""Chains done part by part: which ones, and that they give what they gave before, to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import Native, build, check, compare, machines, random_arguments

from mapsto import ir
from mapsto.ir.affine import AffineMap, axis
from mapsto.ir.bodies import alias_pairs
from mapsto.ir.core import Function, Module
from mapsto.ir.dims import symbol
from mapsto.ir.errors import TypeRuleError
from mapsto.ir.evaluator import evaluate
from mapsto.ir.ops.contraction import contract, reduce_axes
from mapsto.ir.ops.flow import scan
from mapsto.ir.parser import parse_module
from mapsto.ir.passes.parts import MakeParts
from mapsto.ir.printer import module_text
from mapsto.ir.types import DType
from mapsto.ir.verifier import verify
from mapsto.lowering.driver import lower
from mapsto.lowering.outline import outline_text
from mapsto.runtime.threads import set_threads, threads

F32 = DType.F32
SMALL = MakeParts(cache=1 << 14, threads=2, work=1)
"""Takes what the tests have for large."""
IMAGES = [(F32, (8, 2, 12, 12)), (F32, (4, 2, 3, 3)), (F32, (4,))]
HEADS = [(F32, (1, 6, 32, 16)), (F32, (1, 6, 32, 16)), (F32, (1, 6, 32, 16))]


def convolution(b: ir.Builder, x: ir.Value, w: ir.Value) -> ir.Value:
    n, inner, height, width = x.shape
    rows = [axis(2, 7) + axis(5, 7).shifted(-1), axis(3, 7) + axis(6, 7).shifted(-1)]
    maps = [AffineMap(7, (axis(0, 7), axis(4, 7), *rows)), ir.projection((1, 4, 5, 6), 7)]
    return contract(b, [x, w], maps, (n, w.shape[0], height, width, inner, 3, 3), 4)


def pooled(b: ir.Builder, x: ir.Value) -> ir.Value:
    n, channels, height, width = x.shape
    places = [axis(k, 6).scaled(2) + axis(k + 2, 6) for k in (2, 3)]
    map_ = AffineMap(6, (axis(0, 6), axis(1, 6), *places))
    return contract(b, [x], [map_], (n, channels, height // 2, width // 2, 2, 2), 4, "max")


def image_features(b: ir.Builder, x: ir.Value, w: ir.Value, bias: ir.Value) -> ir.Value:
    """A convolution, a bias, a rectifier and a pooling."""
    z = convolution(b, x, w)
    z = b.emit(ir.Add, z, b.emit(ir.Broadcast, bias, shape=z.shape, dims=(1,)))
    return pooled(b, b.emit(ir.Max, z, b.like(0, z)))


def attention(b: ir.Builder, q: ir.Value, k: ir.Value, v: ir.Value) -> ir.Value:
    n, heads, t, d = q.shape
    maps = [ir.projection((0, 1, 2, 4), 5), ir.projection((0, 1, 3, 4), 5)]
    fits = contract(b, [q, k], maps, (n, heads, t, t, d), 4)
    index = b.emit(ir.Iota, axis=0, type=ir.TensorType(DType.I32, (t,)))
    row, column = (b.emit(ir.Broadcast, index, shape=(t, t), dims=(i,)) for i in (0, 1))
    seen = b.emit(ir.Broadcast, b.emit(ir.Le, column, row), shape=fits.shape, dims=(2, 3))
    fits = b.emit(ir.Select, seen, fits, b.like(-1e30, fits))
    e = b.emit(ir.Exp, fits)
    total = b.emit(ir.Broadcast, reduce_axes(b, "sum", e, [3]), shape=e.shape, dims=(0, 1, 2))
    maps = [ir.projection((0, 1, 2, 4), 5), ir.projection((0, 1, 4, 3), 5)]
    return contract(b, [b.emit(ir.Div, e, total), v], maps, (n, heads, t, d, t), 4)


def partitions(function: Function) -> list[ir.Partition]:
    return [op for op in function.operations() if isinstance(op, ir.Partition)]


def in_parts(function: Function, make: MakeParts = SMALL) -> Function:
    """The function after the pass, verified, with the same values and a text that can be read."""
    made = make.run(Module.of(function))
    verify(made)
    assert module_text(parse_module(module_text(made))) == module_text(made)
    arguments = random_arguments(function)
    wanted, found = (evaluate(m, "f", arguments) for m in (Module.of(function), made))
    for before, after in zip(wanted, found, strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    return made["f"]


def test_images_are_done_one_by_one() -> None:
    function = in_parts(build("f", IMAGES, image_features))
    (op,) = partitions(function)
    assert op.outer == (8,)
    assert [value.shape for value in op.operands] == [(4, 2, 3, 3), (4,), (8, 2, 12, 12)]
    assert op.count("constants") == 2
    assert [value.shape for value in op.body.arguments][2] == (1, 2, 12, 12)
    assert function.block.operations[:-1] == [op]


def test_heads_are_done_one_by_one() -> None:
    (op,) = partitions(in_parts(build("f", HEADS, attention)))
    assert op.outer == (1, 6)
    assert op.count("constants") == 0, "a mask of indices is computed inside"


def test_what_is_needed_outside_is_a_result() -> None:
    def body(b, x, w, bias):
        z = convolution(b, x, w)
        shifted = b.emit(ir.Add, z, b.like(1, z))
        mixed = reduce_axes(b, "sum", b.emit(ir.Mul, shifted, shifted), [0])
        return [image_features(b, b.emit(ir.Exp, x), w, bias), mixed, pooled(b, shifted)]

    function = in_parts(build("f", IMAGES, body))
    for op in partitions(function):
        assert (8, 4, 6, 6) in [value.shape for value in op.results]


def looped(b: ir.Builder, x: ir.Value, w: ir.Value, bias: ir.Value) -> list[ir.Value]:
    def step(b, carried, slices):
        z = image_features(b, carried[0], w, bias)
        parts = b.emit(ir.Slice, z, starts=(0,) * 4, sizes=(8, 2, 6, 6), steps=(1,) * 4)
        low, high = (0, 0, 3, 3), (0, 0, 3, 3)
        return [b.emit(ir.Pad, parts, low=low, high=high)], [b.emit(ir.Tanh, z)]

    finals, outputs = scan(b, step, [x], extent=2)
    return [*finals, *outputs]


def updated(b: ir.Builder, x: ir.Value, w: ir.Value, bias: ir.Value) -> list[ir.Value]:
    z = image_features(b, x, w, bias)
    parts = b.emit(ir.Slice, z, starts=(0,) * 4, sizes=(8, 2, 6, 6), steps=(1,) * 4)
    return [b.emit(ir.Pad, parts, low=(0, 0, 0, 0), high=(0, 0, 6, 6)), z]


@pytest.mark.parametrize(
    ("types", "body", "aliases"),
    [
        (IMAGES, image_features, ()),
        (HEADS, attention, ()),
        (IMAGES, looped, ()),
        (IMAGES, updated, ((0, 0),)),
    ],
    ids=["images", "heads", "in a loop", "in place"],
)
def test_same_bits_on_any_number_of_threads(types, body, aliases) -> None:
    plain = build("f", types, body, aliases)
    function = in_parts(plain)
    assert partitions(function)
    arguments = random_arguments(function)
    expected = evaluate(Module.of(plain), "f", arguments)
    machine = replace(machines()[0], cores=10**6)
    own, shared = Native(function, machine), Native(function, machine, threads=True)
    compare(own, arguments, expected)
    results = [outcome(Native(plain, machine), arguments)]
    before = threads()
    try:
        for count in (1, 2, 5):
            set_threads(count)
            results.append(outcome(shared, arguments))
    finally:
        set_threads(before)
    assert results[1] == results[2] == results[3]
    assert results[0] == results[1], "as without parts, where the sums are short"


def outcome(native: Native, arguments: list[np.ndarray]) -> list[bytes]:
    """The bytes of what is given and updated."""
    copies = [np.array(array) for array in arguments]
    results = native(copies)
    assert isinstance(results, list)
    aliased = dict(alias_pairs(native.function)).values()
    return [array.tobytes() for array in (*results, *(copies[i] for i in aliased))]


def test_a_batch_of_one_gives_the_same_bits() -> None:
    arguments = random_arguments(build("f", IMAGES, image_features))
    single = [(F32, (1, *IMAGES[0][1][1:])), *IMAGES[1:]]
    one = Native(build("f", single, image_features), machines()[0])
    whole = Native(in_parts(build("f", IMAGES, image_features)), machines()[0])
    (together,) = whole(arguments)
    alone = [one([arguments[0][i : i + 1], *arguments[1:]])[0] for i in range(8)]
    assert together.tobytes() == np.concatenate(alone).tobytes()


# ---- where there are none


def test_ops_that_mix_images_are_not_in_parts() -> None:
    def normalized(b, x, w, bias):
        """Batch normalization between the convolution and the pooling."""
        z = convolution(b, x, w)
        mean = reduce_axes(b, "max", z, [0, 2, 3])
        return pooled(b, b.emit(ir.Sub, z, b.emit(ir.Broadcast, mean, shape=z.shape, dims=(1,))))

    def reversed_batch(b, x, w, bias):
        z = convolution(b, x, w)
        starts, steps = (7, 0, 0, 0), (-1, 1, 1, 1)
        return pooled(b, b.emit(ir.Slice, z, starts=starts, sizes=z.shape, steps=steps))

    def shifted_batch(b, x, w, bias):
        z = convolution(b, x, w)
        moved = b.emit(ir.Slice, z, starts=(1, 0, 0, 0), sizes=(7, *z.shape[1:]), steps=(1,) * 4)
        return pooled(b, b.emit(ir.Pad, moved, low=(0, 0, 0, 0), high=(1, 0, 0, 0)))

    for body in (normalized, reversed_batch, shifted_batch):
        assert not partitions(in_parts(build("f", IMAGES, body)))


@pytest.mark.parametrize(
    "make",
    [
        replace(SMALL, threads=5),
        replace(SMALL, cache=1 << 20),
        replace(SMALL, cache=1 << 8),
        replace(SMALL, work=1 << 20),
    ],
    ids=["threads idle", "all fits", "a part does not fit", "little work"],
)
def test_where_it_does_not_pay(make: MakeParts) -> None:
    assert not partitions(in_parts(build("f", IMAGES, image_features), make))


def test_rows_that_share_weights_are_not_in_parts() -> None:
    """A row uses each weight once: with parts of rows, each row would read all weights."""

    def perceptron(b, x, w, v):
        maps = [ir.projection((0, 2), 3), ir.projection((2, 1), 3)]
        z = b.emit(ir.Tanh, contract(b, [x, w], maps, (64, 128, 64), 2))
        return contract(b, [z, v], maps, (64, 64, 128), 2)

    types = [(F32, (64, 64)), (F32, (64, 128)), (F32, (128, 64))]
    assert not partitions(in_parts(build("f", types, perceptron)))


def test_a_batch_of_unknown_size_is_not_in_parts() -> None:
    types = [(F32, (symbol("n"), 2, 12, 12)), *IMAGES[1:]]
    assert not partitions(SMALL.run(Module.of(build("f", types, image_features)))["f"])


# ---- how they are lowered


def test_kernels_of_parts_are_serial_and_weights_are_packed_once() -> None:
    machine = replace(machines()[0], cores=10**6)
    function = in_parts(
        build("f", [(F32, (8, 8, 24, 24)), (F32, (16, 8, 3, 3)), (F32, (16,))], image_features),
        replace(SMALL, cache=1 << 18),
    )
    compiled = lower(Module.of(function), "f", machine)
    text = outline_text(compiled.functions["f"])
    assert "partition {constants = 2, outer = [8]}" in text
    inside = [kernel for kernel in compiled.kernels if ".kernel" in kernel.name]
    assert inside and all("parallel" not in loop_kinds(kernel) for kernel in inside)
    check(function, on=[machine])


def loop_kinds(kernel) -> set[str]:
    from mapsto.lowering.loop_walk import statements
    from mapsto.lowering.loops import For

    return {s.kind.value for s in statements(kernel.body) if isinstance(s, For)}


def test_large_programs_are_in_parts_on_a_cpu() -> None:
    types = [(F32, (16, 8, 32, 32)), (F32, (16, 8, 3, 3)), (F32, (16,))]
    machine = replace(machines()[0], cores=2, l2=1 << 18)
    compiled = lower(Module.of(build("f", types, image_features)), "f", machine)
    assert "partition {constants = 2, outer = [16]}" in outline_text(compiled.functions["f"])


def test_an_index_that_is_not_there_fails_in_parts() -> None:
    """The first part that fails says how; the others do no harm."""

    def body(b, x, indices):
        inner = ir.Builder(ir.Block([ir.TensorType(F32, (9,)), ir.TensorType(DType.I32, (1, 3))]))
        table, part = inner.block.arguments
        region = ir.Region(inner.returning(inner.emit(ir.Gather, table, part, axes=(0,))))
        return b.emit(ir.Partition, x, indices, regions=[region], constants=1, outer=(4,))

    function = build("f", [(F32, (9,)), (DType.I32, (4, 3))], body)
    native = Native(function, machines()[0])
    table = np.arange(9, dtype=np.float32)
    indices = np.arange(12, dtype=np.int32).reshape(4, 3) % 9
    (found,) = native([table, indices])
    np.testing.assert_array_equal(found, table[indices])
    indices[2, 1] = 9
    assert native([table, indices]) != 0


# ---- the verifier


def wrong(part: tuple[int, ...], outer: tuple[int, ...], constants: int = 0) -> str:
    """What is wrong with a partition of f32[4, 6] whose body takes f32[part] and gives it."""
    x = ir.Value(ir.TensorType(F32, (4, 6)), None, 0)
    inner = ir.Builder(ir.Block([ir.TensorType(F32, part)]))
    region = ir.Region(inner.returning(inner.block.arguments[0]))
    with pytest.raises(TypeRuleError) as caught:
        ir.Partition([x], {"constants": constants, "outer": outer}, [region])
    return str(caught.value)


def test_the_shape_rule() -> None:
    assert "the body takes f32[2, 6] of f32[4, 6]" in wrong((2, 6), (4,))
    assert "the body takes f32[1, 6] of f32[4, 6]" in wrong((1, 6), (3,))
    assert "the body takes f32[1, 6] of f32[4, 6]" in wrong((1, 6), (4,), constants=1)
    assert "a part is f32[4, 6]" in wrong((4, 6), (4,), constants=1)
    assert "along axes of []" in wrong((4, 6), ())
