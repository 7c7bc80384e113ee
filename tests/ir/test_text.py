"""The text form: exact round trips, and located errors for everything else."""

import math
import random

import numpy as np
import pytest

from mapsto import ir
from mapsto.ir.affine import AffineExpr, AffineMap
from mapsto.ir.core import Block, DenseArray, Function, Location, Module, Region, SymbolReference
from mapsto.ir.dims import floor_div, symbol
from mapsto.ir.errors import TextError
from mapsto.ir.ops.contraction import contract, reduce_axes
from mapsto.ir.parser import parse_module
from mapsto.ir.printer import attribute_text, function_text, module_text
from mapsto.ir.text_attributes import read_attribute
from mapsto.ir.text_tokens import Cursor

N, M = symbol("n"), symbol("m")
F32, I32 = ir.DType.F32, ir.DType.I32


def same_attribute(left, right):
    """Equal, of the same type, and the same bits."""
    if isinstance(left, tuple):
        pairs = zip(left, right, strict=True)
        return isinstance(right, tuple) and all(same_attribute(a, b) for a, b in pairs)
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or repr(left) == repr(right)
    return type(left) is type(right) and left == right


def assert_same_block(left, right):
    numbers = {}
    for a, b in zip(left.arguments, right.arguments, strict=True):
        assert (a.type, a.hint) == (b.type, b.hint)
        numbers[a] = b
    for a, b in zip(left.operations, right.operations, strict=True):
        assert type(a) is type(b) and a.location == b.location
        assert a.attributes.keys() == b.attributes.keys()
        for name, value in a.attributes.items():
            assert same_attribute(value, b.attributes[name]), name
        for x, y in zip(a.operands, b.operands, strict=True):
            assert numbers[x] is y
        for x, y in zip(a.regions, b.regions, strict=True):
            assert_same_block(x.block, y.block)
        for x, y in zip(a.results, b.results, strict=True):
            assert (x.type, x.hint) == (y.type, y.hint)
            numbers[x] = y


def assert_round_trip(module):
    text = module_text(module, locations=True)
    again = parse_module(text)
    assert list(again.functions) == list(module.functions)
    for name, function in module.functions.items():
        found = again[name]
        assert (found.name, found.location) == (function.name, function.location)
        assert same_attribute(
            tuple(sorted(function.attributes.items())), tuple(sorted(found.attributes.items()))
        )
        assert_same_block(function.block, found.block)
    assert module_text(again, locations=True) == text
    return text


def matmul_function():
    build = ir.Builder(Block([ir.TensorType(F32, (N, 64)), ir.TensorType(F32, (64, 10))], "xw"))
    x, w = build.block.arguments
    maps = [ir.projection((0, 2), 3), ir.projection((2, 1), 3)]
    y = contract(build, [x, w], maps, [N, 10, 64], 2)
    y.hint = "y"
    zero = build.constant(0.0, F32, (N, 10))
    result = build.emit(ir.Max, y, zero)
    return ir.finish_function("dense", build, [result])


DENSE = """\
func @dense(%x: f32[n, 64], %w: f32[64, 10]) -> (f32[n, 10]) {
  %y = contract %x, %w {extents = [n, 10, 64], maps = [(d0, d1, d2) -> (d0, d2), \
(d0, d1, d2) -> (d2, d1)], rank = 2} : f32[n, 10]
  %0 = constant {value = 0.0} : f32[n, 10]
  %1 = max %y, %0 : f32[n, 10]
  return %1
}
"""


def test_the_text_is_readable():
    assert function_text(matmul_function()) == DENSE
    assert_round_trip(Module.of(matmul_function()))


ATTRIBUTES = [
    True,
    False,
    0,
    -3,
    2**80,
    0.0,
    -0.0,
    1.0,
    0.1,
    1e-300,
    1e300,
    -2.5e-7,
    math.inf,
    -math.inf,
    math.nan,
    "",
    'a "quoted" \\ text\nof two lines ü',
    F32,
    ir.DType.BOOL,
    ir.TensorType(I32),
    ir.TensorType(F32, (N, 2 * N + 1, 3)),
    N,
    -N,
    N * M - 2,
    3 * N * N * M + 2 * N - 1,
    floor_div(N + 1, 2),
    2 * floor_div(N * M - 3, 4) * M + 1,
    floor_div(floor_div(N, 3) + 1, 2),
    floor_div(N, M + 1),
    floor_div(N + 1, 2 * M),
    floor_div(N + 1, N * M),
    symbol("true") + symbol("odd `name`") * symbol("f32"),
    floor_div(symbol("a b") + 1, 2),
    SymbolReference("f"),
    SymbolReference('odd "name"'),
    (),
    (1, (True, 1.0), ()),
    (N, 3, "x"),
    AffineMap(0, ()),
    AffineMap(2, ()),
    ir.identity_map(3),
    AffineMap(2, (AffineExpr((2, -1), 3), AffineExpr((0, 0), -1), AffineExpr((0, -3), 0))),
    AffineMap(2, (AffineExpr((N, N + 1), floor_div(M, 2)), AffineExpr((-2 * N, 0), -M))),
    AffineMap(1, (AffineExpr((floor_div(N + 1, 2),), 0),)),
    AffineMap(1, (AffineExpr((symbol("d0"),), symbol("dd1")),)),
    AffineMap(1, (AffineExpr((symbol("a b"),), symbol("inf")),)),
    (ir.identity_map(1), ir.identity_map(2)),
]


@pytest.mark.parametrize("value", ATTRIBUTES, ids=repr)
def test_attributes_round_trip(value):
    text = attribute_text(value)
    cursor = Cursor(text, "test")
    assert same_attribute(value, read_attribute(cursor)), text
    assert cursor.token.kind == "end"


ARRAYS = [
    np.array([[1, -2], [3, 4]], np.int32),
    np.array(7, np.uint8),
    np.zeros((0, 3), np.float32),
    np.array([True, False]),
    np.array([0.1, -0.0, np.inf, -np.inf, 1e-45, 3.4028235e38], np.float32),
    np.array([0.1, 5e-324, 1.7976931348623157e308]),
    np.array([0.1, 65504, 6e-8], np.float16),
    np.array([np.nan, 1], np.float32),
    np.array([0x7FC00001], np.uint32).view(np.float32),
    np.arange(100, dtype=np.int64).reshape(4, 25),
    np.arange(100) % 3 == 0,
    np.array([-(2**63), 2**63 - 1]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_arrays_round_trip(array):
    value = DenseArray(array)
    assert read_attribute(Cursor(attribute_text(value), "test")) == value


def test_arrays_of_other_types_have_no_text():
    with pytest.raises(TextError, match="complex128"):
        attribute_text(DenseArray(np.array([1j])))
    with pytest.raises(TextError, match="has no text form"):
        attribute_text({1, 2})


def test_names_come_from_hints():
    types = [ir.TensorType(F32)] * 6
    build = ir.Builder(Block(types, ["x", "x", "", "layers.0.w", "0", "a b$1"]))
    total = build.block.arguments[0]
    for value in build.block.arguments[1:]:
        total = build.emit(ir.Add, total, value)
        total.hint = "x"
    text = assert_round_trip(Module.of(ir.finish_function("f", build, [total])))
    names = '%x: f32[], %x$1: f32[], %0: f32[], %layers.0.w: f32[], %"0": f32[], %"a b$1": f32[]'
    assert f"func @f({names})" in text


def test_functions_keep_attributes_and_locations():
    function = matmul_function()
    attributes = {"aliases": ((0, 1),), "odd name": "x", "scale": -0.0, "names": ("a", "b")}
    place = Location('dir/"a".mto', 3, 14)
    function = Function("odd name", function.block, attributes, place)
    text = assert_round_trip(Module.of(function))
    assert 'func @"odd name"' in text and "aliases = [[0, 1]]" in text
    assert "loc" not in module_text(Module.of(function))


def test_operations_keep_locations():
    build = ir.Builder(Block([ir.TensorType(F32)], ["x"]), Location("a.mto", 7, 5))
    y = build.emit(ir.Exp, *build.block.arguments)
    text = assert_round_trip(Module.of(ir.finish_function("f", build, [y])))
    assert '  %0 = exp %x : f32[] loc("a.mto":7:5)\n' in text


def test_regions_and_several_results():
    type_ = ir.TensorType(F32, (N, 4))
    inner = ir.Builder(Block([type_], ["a"]))
    doubled = inner.emit(ir.Add, *inner.block.arguments * 2)
    region = Region(inner.returning(doubled, reduce_axes(inner, "max", doubled, [1])))
    build = ir.Builder(Block([type_], ["a"]))
    kernel = build.op(ir.Kernel, *build.block.arguments, regions=[region])
    kernel.results[1].hint = "peak"
    text = assert_round_trip(Module.of(ir.finish_function("f", build, kernel.results)))
    assert "  %0, %peak = kernel %a (%a$1: f32[n, 4]) {\n" in text
    assert "\n  } : f32[n, 4], f32[n]\n" in text


def test_references_and_implied_attributes():
    function = matmul_function()
    types = [value.type for value in function.arguments]
    build = ir.Builder(Block([*types, function.results[0].type], ["x", "w", "dy"]))
    request = build.op(
        ir.Vjp,
        *build.block.arguments,
        callee=SymbolReference("dense"),
        results=(function.results[0].type, types[1]),
        wrt=(1,),
        outputs=(0,),
    )
    key = build.constant(3, ir.DType.I64)
    noise = build.emit(ir.Random, key, stream=5, type=ir.TensorType(F32, (N, 2)))
    flat = build.emit(ir.Reshape, noise, shape=(2 * N,))
    wide = build.emit(ir.Broadcast, flat, shape=(3, 2 * N), dims=(1,))
    results = [*request.results, wide]
    text = assert_round_trip(Module.of(function, ir.finish_function("g", build, results)))
    assert "vjp %x, %w, %dy {callee = @dense, outputs = [0], wrt = [1]} : " in text
    assert "= random %2 {stream = 5} : f32[n, 2]" in text
    assert "= reshape %3 : f32[2*n]" in text


def test_defaults_are_left_out_only_where_they_are_exact():
    build = ir.Builder(Block([ir.TensorType(F32, (3,))], ["x"]))
    (x,) = build.block.arguments
    results = [
        build.emit(ir.Pad, x, low=(1,), high=(0,), value=value) for value in (0, 0.0, -0.0, False)
    ]
    text = assert_round_trip(Module.of(ir.finish_function("f", build, results)))
    assert text.count("value = ") == 3


def test_comments_and_the_empty_module():
    assert parse_module("// nothing\n").functions == {}
    assert_round_trip(Module({}))
    assert parse_module("func @f() -> () { // no values\n return }")["f"].results == ()


def body(line):
    return f"func @f(%x: f32[n], %y: f32[3]) -> () {{\n  {line}\n  return\n}}"


ERRORS = [
    ("fun @f() -> () {}", "1:1: expected `func`, found `fun`"),
    ("func f() -> () {}", "1:6: expected a function's name, such as @f, found `f`"),
    ("func @f(%x f32[]) -> ()", "1:12: expected `:`, found `f32`"),
    ("func @f() -> () {", "1:18: expected an operation, found the end of the text"),
    ("func @f() -> () {}", "1:18: a block ends in `return`"),
    ("func @f() -> () {return return}", "1:25: an operation behind `return`"),
    ("func @f() -> (f32[]) {return}", r"1:14: the function returns \(\)"),
    ("func @f() -> () {return} func @f() -> () {return}", "1:26: the function @f stands twice"),
    ("func @f() -> () {return} $", r"1:26: unexpected character '\$'"),
    ('func @f() -> () attributes {a = "b', "1:33: unexpected character"),
    (r'func @f() -> () attributes {a = "\q"} {return}', "1:33: wrong escape in quotes"),
    ("func @f() -> () attributes {a = 1, a = 2} {return}", "1:36: the attribute `a` stands twice"),
    ("func @f() -> () attributes {a = f99} {%}", "unexpected character '%'"),
    (body("%z = expp %x : f32[n]"), "2:8: no op is named `expp`; did you mean `exp`"),
    (body("%z = exp %w : f32[n]"), "2:12: %w is not defined"),
    (body("%z = exp %x, %x : f32[n]"), "2:8: exp takes 1 operands, found 2"),
    (body("%z = add %x, %y : f32[n]"), r"2:8: add of f32\[n\] and f32\[3\]"),
    (body("%z = exp %x : f32[m]"), r"2:8: exp gives \(f32\[n\]\)"),
    (body("exp %x : f32[n]"), "2:3: exp has 1 results"),
    (body("%z, = exp %x : f32[n]"), "2:7: expected a value"),
    (body("%z = exp %x, : f32[n]"), "2:16: expected a value"),
    (body("%x = exp %x : f32[n]"), "2:3: %x is defined twice"),
    (body("%z = exp %x : float[n]"), "2:17: expected a type"),
    (body("%z = exp %x {a = 1} : f32[n]"), "2:8: exp has no attribute `a`"),
    (body("%z = cast %x : f32[n]"), "2:8: cast lacks the attribute `dtype`"),
    (body("%z = cast %x {dtype = 3} : f32[n]"), "2:8: cast: `dtype` is of type int, not DType"),
    (body("%z = concat %x {axis = true} : f32[n]"), "`axis` is of type bool, not int"),
    (body("%z = gather {axes = [0]} : f32[n]"), "2:8: gather is ill-formed"),
    (body("%z = kernel %x : f32[n]"), "2:8: kernel has one body, found 0"),
    (body("%z = constant {value = 1.0} : f32[n / 0]"), "2:39: a dimension is divided by zero"),
    (body("%z = constant {value = -true} : f32[]"), "2:27: expected a number"),
    (body("%z = constant {value = dense<f32[2], [1.0]>} : f32[2]"), "1 elements for the shape"),
    (body("%z = constant {value = dense<f32[1], [1]>} : f32[1]"), "not of type f32"),
    (body("%z = constant {value = dense<u8[1], [256]>} : u8[1]"), "out of the range of u8"),
    (body('%z = constant {value = dense<u8[1], "!"> } : u8[1]'), "not base 64"),
    (body('%z = constant {value = dense<i32[1], "AA=="> } : i32[1]'), "not a whole number"),
    (body('%z = constant {value = dense<bool[1], "Ag=="> } : bool[1]'), "bytes of truth values"),
    (body("%z = constant {value = dense<f32[n], []>} : f32[n]"), "a known shape"),
    (body(f"%z = constant {{value = dense<f32[{'1, ' * 64}1], [1.0]>}} : f32[]"), "a known shape"),
    (body("%z = constant {value = (d0) -> (d0 * d0)} : f32[]"), "2:35: not affine"),
    (body("%z = constant {value = (d0) -> (d0 / 2)} : f32[]"), "2:35: not affine"),
    (body("%z = constant {value = (d0, d0) -> ()} : f32[]"), "stands twice"),
    (body('%z = exp %x : f32[n] loc("f":1)'), "expected `:`"),
    (body('%z = exp %x : f32[n] loc("f":1:99999999999999999999)'), "out of range"),
    (body(f"%z = constant {{value = {'9' * 5000}}} : f32[]"), "more than 1000 digits"),
    (body(f"%z = constant {{value = {'(' * 5000}}} : f32[]"), "more than 50 levels"),
    (body(f"%z = constant {{value = {'[' * 5000}}} : f32[]"), "more than 50 levels"),
    (body(f"%z = constant {{value = n{' * (n + m)' * 5000}}} : f32[]"), "a dimension of more than"),
    (body(f"%z = constant {{value = n{' / 2' * 5000}}} : f32[]"), "a dimension of more than"),
    (body(f"%z = constant {{value = {'-' * 50_001}n}} : f32[]"), "is of type DimExpression"),
]


@pytest.mark.parametrize(("text", "message"), ERRORS, ids=[str(i) for i in range(len(ERRORS))])
def test_wrong_texts(text, message):
    with pytest.raises(TextError, match=message) as info:
        parse_module(text, "a.ir")
    assert str(info.value).startswith("a.ir:")


PIECES = [*'%@{}()[]<>:,=*/+-01"`', "->", "1.5", "d0", "n", "f32", "loc", "dense", "func"]


def mutated(text, chooser):
    """The text with a few pieces removed, doubled, moved or replaced."""
    for _ in range(chooser.randint(1, 4)):
        start = chooser.randrange(len(text) + 1)
        stop = min(len(text), start + chooser.randint(0, 12))
        middle = chooser.choice(["", chooser.choice(PIECES), text[start:stop] * 2])
        text = text[:start] + middle + text[stop:]
    return text


def test_mutated_texts_give_modules_or_located_errors():
    chooser = random.Random(0)
    build = ir.Builder(Block([ir.TensorType(F32, (N, 4))], ["a"]))
    inner = ir.Builder(Block([ir.TensorType(F32, (N, 4))], ["a"]))
    region = Region(inner.returning(*inner.block.arguments))
    kernel = build.op(ir.Kernel, *build.block.arguments, regions=[region])
    table = build.emit(
        ir.Constant, value=DenseArray(np.arange(3.0)), type=ir.TensorType(ir.DType.F64, (3,))
    )
    place = Location("f", 1, 2)
    function = ir.finish_function(
        "g", build, [kernel.result, table], {"aliases": ((0, 0),)}, location=place
    )
    texts = [DENSE, module_text(Module.of(function), locations=True)]
    outcomes = set()
    for _ in range(3000):
        text = mutated(chooser.choice(texts), chooser)
        try:
            module_text(parse_module(text))
            outcomes.add("module")
        except TextError as error:
            assert str(error).startswith("<text>:")
            outcomes.add("error")
    assert outcomes == {"module", "error"}
