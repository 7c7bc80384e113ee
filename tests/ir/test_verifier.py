"""Each invariant of the verifier, broken once."""

import numpy as np
import pytest

from mapsto import ir
from mapsto.ir.core import Block, DenseArray, Function, Location, Module, Region, SymbolReference
from mapsto.ir.errors import VerifyError
from mapsto.ir.verifier import verify

F32, I32 = ir.DType.F32, ir.DType.I32
N = ir.symbol("n")
VECTOR = ir.TensorType(F32, (N,))
SCALAR = ir.TensorType(F32)
INDICES = ir.TensorType(I32, (N,))


def block_of(*operations, arguments=(VECTOR,)):
    """A block of operations, each a function of the values so far."""
    block = Block(arguments)
    values = list(block.arguments)
    for make in operations:
        op = make(values)
        block.operations.append(op)
        values += op.results
    return block


def exp(values):
    return ir.Exp([values[-1]])


def give_last(values):
    return ir.Return([values[-1]])


def module_of(block, name="f", **attributes):
    return Module.of(Function(name, block, attributes))


def fails(module, message):
    with pytest.raises(VerifyError, match=message):
        verify(module)


def test_a_well_formed_module():
    verify(module_of(block_of(exp, exp, give_last), aliases=((0, 0),)))
    verify(Module({}))


def test_a_function_stands_under_its_name():
    function = module_of(block_of(exp, give_last))["f"]
    fails(Module({"g": function}), "the function @f stands under the name @g")


@pytest.mark.parametrize("operations", [(), (exp,)])
def test_a_block_ends_in_return(operations):
    fails(module_of(block_of(*operations)), "@f: a block ends in `return`")


def test_there_is_one_return():
    fails(module_of(block_of(give_last, exp, give_last)), "`return` in @f: stands before the end")


def test_operands_are_defined_before():
    block = block_of(exp, exp, give_last)
    first, second, last = block.operations
    message = "`exp` in @f: operand 0, <value 0 : .*>, is not defined before"
    fails(module_of(block.with_operations([second, first, last])), message)


def test_operands_belong_to_the_function():
    other = ir.Value(VECTOR, None, 0, "stranger")
    fails(module_of(block_of(lambda values: ir.Exp([other]), give_last)), "<value stranger")


def kernel_of(inner):
    return lambda values: ir.Kernel([values[0]], {}, [Region(inner)])


def test_kernels_see_only_their_operands():
    captured = []

    def exp_of_outer(values):
        return ir.Exp(captured)

    def kernel(values):
        captured.append(values[0])
        return ir.Kernel([values[0]], {}, [Region(block_of(exp_of_outer, give_last))])

    fails(module_of(block_of(kernel, give_last)), "`exp` in @f: operand 0")


def test_bodies_of_kernels_are_verified():
    inner = block_of(exp, give_last)
    verify(module_of(block_of(kernel_of(inner), give_last)))
    inner.operations.insert(0, ir.Return(inner.arguments))
    fails(module_of(block_of(kernel_of(inner), give_last)), "stands before the end")


def test_an_operation_stands_once():
    block = block_of(exp, give_last)
    twice = [block.operations[0], *block.operations]
    fails(module_of(block.with_operations(twice)), "`exp` in @f: .* is defined twice or elsewhere")


def test_an_argument_is_that_of_one_block():
    inner = block_of(exp, give_last)
    fails(
        module_of(block_of(kernel_of(inner), kernel_of(inner), give_last)),
        "is defined twice or elsewhere",
    )


def test_values_know_their_position():
    block = block_of(exp, give_last)
    block.arguments[0].index = 1
    fails(module_of(block), "@f: .* is defined twice or elsewhere")


def test_ops_are_registered():
    class Impostor(ir.Exp):
        pass

    block = block_of(lambda values: Impostor(values), give_last)
    fails(module_of(block), "`exp` in @f: is not the op registered under that name")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": 3}, "cast: `dtype` is of type int, not DType"),
        ({"dtype": None}, "cast lacks the attribute `dtype`"),
        ({"extra": 1}, "cast has no attribute `extra`"),
    ],
)
def test_attributes_are_as_declared(change, message):
    op = None

    def cast(values):
        nonlocal op
        op = ir.Cast(values, {"dtype": F32})
        return op

    block = block_of(cast, give_last)
    op.attributes |= change
    op.attributes = {k: v for k, v in op.attributes.items() if v is not None}
    fails(module_of(block), message)


def test_a_truth_value_is_no_number():
    op = ir.Iota([], {"axis": 0, "type": VECTOR})
    op.attributes["axis"] = True
    fails(module_of(block_of(lambda values: op, give_last)), "`axis` is of type bool, not int")


def test_tuples_hold_attributes():
    op = ir.Reshape(Block([VECTOR]).arguments, {"shape": (N,)})
    op.attributes["shape"] = ([N],)

    def reshape(values):
        op.operands = (values[0],)
        return op

    fails(module_of(block_of(reshape, give_last)), "`shape` is of type tuple")


def test_arrays_have_types_of_the_language():
    type_ = ir.TensorType(F32, (2,))
    value = DenseArray(np.array([1j, 2]))
    block = block_of(lambda _: ir.Constant([], {"value": value, "type": type_}), give_last)
    fails(module_of(block), "`value` is an array of complex128, no type of the language")


def test_results_have_the_types_of_the_shape_rule():
    block = block_of(lambda values: ir.Exp(values, result_types=[SCALAR]), give_last)
    message = r"`exp` in @f: has results of type \(f32\[\]\), not \(f32\[n\]\)"
    fails(module_of(block), message)


def test_operands_fit_the_shape_rule():
    place = Location("a.mto", 3, 7)
    block = block_of(
        lambda values: ir.Add(values, location=place, result_types=[VECTOR]),
        give_last,
        arguments=(VECTOR, SCALAR),
    )
    fails(module_of(block), r"^a.mto:3:7: `add` in @f: add of f32\[n\] and f32\[\]")


def test_the_number_of_operands():
    block = block_of(lambda values: ir.Add(values, result_types=[VECTOR]), give_last)
    fails(module_of(block), "add takes 2 operands, found 1")


def test_kernels_have_a_body():
    block = block_of(lambda values: ir.Kernel(values, result_types=[VECTOR]), give_last)
    fails(module_of(block), "kernel has one body, found 0")


def test_shape_rules_that_fail():
    gather = ir.Gather([], {"axes": (0,)}, result_types=[VECTOR])
    block = block_of(lambda _: gather, give_last)
    fails(module_of(block), "in @f: its shape rule fails: IndexError")


def test_known_sizes_are_not_negative():
    empty, negative = (ir.TensorType(F32, (size,)) for size in (0, -1))
    verify(module_of(block_of(exp, give_last, arguments=[empty])))
    fails(module_of(block_of(give_last, arguments=[negative])), "has a negative size")
    constant = ir.Constant([], {"value": 1.0, "type": negative})
    fails(module_of(block_of(lambda values: constant, give_last)), "`constant` in @f: .* negative")


def test_sizes_are_those_of_arguments():
    m = ir.TensorType(F32, (ir.symbol("m"),))
    block = block_of(lambda _: ir.Constant([], {"value": 0.0, "type": m}), give_last)
    fails(module_of(block), "`constant` in @f: the size m is no size of an argument")


# ---- references to functions


def reference(record, types, **attributes):
    def make(values):
        return record(values, {"callee": SymbolReference("g"), "results": types, **attributes})

    return make


def with_callee(make, *arguments, results=1, callee_types=(VECTOR, INDICES)):
    """A module where @f applies the op to its arguments, and @g is exp of its first argument."""
    callee = block_of(lambda values: ir.Exp(values[:1]), give_last, arguments=callee_types)
    block = block_of(make, lambda values: ir.Return(values[-results:]), arguments=arguments)
    return Module.of(Function("f", block), Function("g", callee))


def test_calls():
    verify(with_callee(reference(ir.Call, (VECTOR,)), VECTOR, INDICES))


def test_named_sizes_of_a_callee_are_replaced():
    m = ir.symbol("m")
    types = ir.TensorType(F32, (2 * m,)), ir.TensorType(I32, (2 * m,))
    verify(with_callee(reference(ir.Call, types[:1]), *types))


def test_the_callee_exists():
    block = block_of(reference(ir.Call, (VECTOR,)), give_last)
    fails(module_of(block), "`call` in @f: no function @g")


@pytest.mark.parametrize(
    "arguments",
    [(VECTOR,), (VECTOR, VECTOR), (VECTOR, ir.TensorType(I32, (2 * N,))), (SCALAR, INDICES)],
)
def test_a_call_gives_the_callees_arguments(arguments):
    module = with_callee(reference(ir.Call, (VECTOR,)), *arguments)
    fails(module, r"@g takes \(f32\[n\], i32\[n\]\), found")


@pytest.mark.parametrize("results", [(), (SCALAR,), (VECTOR, VECTOR)])
def test_a_call_has_the_callees_results(results):
    module = with_callee(reference(ir.Call, results), VECTOR, INDICES)
    fails(module, r"@g gives \(f32\[n\]\), found")


def derivative(record, types, wrt=(0,), outputs=(0,)):
    return reference(record, types, wrt=wrt, outputs=outputs)


@pytest.mark.parametrize("record", [ir.Vjp, ir.Jvp])
def test_derivatives(record):
    good = derivative(record, (VECTOR, VECTOR))
    verify(with_callee(good, VECTOR, INDICES, VECTOR, results=2))
    fails(with_callee(good, VECTOR, INDICES, results=2), r"takes \(f32\[n\]\) and gives")
    fails(with_callee(good, VECTOR, INDICES, SCALAR, results=2), r"takes \(f32\[n\]\) and gives")
    few = derivative(record, (VECTOR,))
    fails(with_callee(few, VECTOR, INDICES, VECTOR), r"and gives \(f32\[n\]\) beside @g")
    none = derivative(record, ())
    fails(with_callee(none, VECTOR, INDICES, VECTOR), "@g takes 2 arguments and gives 1 results")
    wrong = derivative(record, (SCALAR, VECTOR))
    fails(with_callee(wrong, VECTOR, INDICES, VECTOR), r"@g gives \(f32\[n\]\), found")


@pytest.mark.parametrize(
    ("wrt", "outputs"),
    [((1,), (0,)), ((2,), (0,)), ((-1,), (0,)), ((0, 0), (0,)), ((0,), (1,)), (("x",), (0,))],
)
def test_derivatives_are_by_what_is_continuous(wrt, outputs):
    op = derivative(ir.Vjp, (VECTOR, VECTOR), wrt, outputs)
    message = "`wrt` and `outputs` name arguments and results of floating point, each once"
    fails(with_callee(op, VECTOR, INDICES, VECTOR, results=2), message)


def test_custom_gradients():
    def gradient_of(name):
        return reference(ir.CustomCall, (VECTOR,), gradient=SymbolReference(name))

    pair = (VECTOR, VECTOR)
    product = block_of(lambda values: ir.Mul(values), give_last, arguments=pair)
    module = with_callee(gradient_of("h"), VECTOR, callee_types=(VECTOR,))
    verify(module.with_function(Function("h", product)))
    fails(module, "no function @h")
    wrong = with_callee(gradient_of("g"), VECTOR, callee_types=(VECTOR,))
    fails(wrong, r"@g takes \(f32\[n\]\), found \(f32\[n\], f32\[n\]\)")


# ---- functions


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        (3, "`aliases` is a tuple of pairs"),
        ((0, 0), "`aliases` is a tuple of pairs"),
        (((0, 0, 0),), "`aliases` is a tuple of pairs"),
        (((1, 0),), "names result 1, which there is not"),
        (((0, 2),), "names argument 2, which there is not"),
        (((0, -1),), "names argument -1, which there is not"),
        (((0, 1),), "result 0 and argument 1 differ in type"),
        (((0, 0), (0, 0)), "`aliases` has the same result twice"),
        (([0, 0],), "`aliases` is no attribute"),
    ],
)
def test_aliases(aliases, message):
    block = block_of(lambda values: ir.Exp(values[:1]), give_last, arguments=(VECTOR, SCALAR))
    fails(module_of(block, aliases=aliases), message)


def test_an_argument_is_aliased_once():
    block = block_of(exp, lambda values: ir.Return(values))
    fails(module_of(block, aliases=((0, 0), (1, 0))), "`aliases` has the same argument twice")


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        (3, "`constants` is a tuple of numbers"),
        (((0, 0),), "`constants` is a tuple of numbers"),
        ((2,), "`constants` names argument 2, which there is not"),
        ((0,), "`constants` names argument 0, which is updated"),
    ],
)
def test_constants(constants, message):
    block = block_of(lambda values: ir.Exp(values[:1]), give_last, arguments=(VECTOR, SCALAR))
    verify(module_of(block, aliases=((0, 0),), constants=(1,)))
    fails(module_of(block, aliases=((0, 0),), constants=constants), message)
