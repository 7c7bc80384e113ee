"""Every op's record is complete: description, attributes, meaning, derivative."""

import numpy as np
import pytest

from mapsto import ir
from mapsto.ir.attributes import attribute_problems, is_attribute
from mapsto.ir.core import Operation, registered_ops
from mapsto.ir.ops.elementwise import Elementwise
from mapsto.ir.ops.logic import Compare

OPS = {n: r for n, r in registered_ops().items() if r.__module__.startswith("mapsto.ir.ops")}
EVALUATED = {
    name: record
    for name, record in OPS.items()
    if not record.traits & (ir.Trait.OPAQUE | ir.Trait.TERMINATOR)
}
ELEMENTWISE = [
    (record, dtype)
    for record in OPS.values()
    if issubclass(record, Elementwise) and record is not ir.Cast and record is not ir.Select
    for dtype in ir.DType
    if dtype in record.accepts
]


def overrides(record, *methods):
    """Whether the record says more than the base class does."""
    return any(getattr(record, method) is not getattr(Operation, method) for method in methods)


@pytest.mark.parametrize("name", OPS)
def test_description(name):
    record = OPS[name]
    assert "__doc__" in record.__dict__ and record.__doc__, "a doc line of its own"
    first = record.__doc__.strip().splitlines()[0]
    assert first[0].isupper() or not first[0].isalpha() or first.startswith(("x ", "e "))
    assert name == name.lower()


@pytest.mark.parametrize("name", OPS)
def test_attributes_are_declared(name):
    record = OPS[name]
    assert record.defaults.keys() <= record.attribute_types.keys()
    assert all(map(is_attribute, record.defaults.values()))
    problems = list(attribute_problems(record, record.defaults))
    assert all("lacks the attribute" in problem for problem in problems)
    for expected in record.attribute_types.values():
        kinds = expected if isinstance(expected, tuple) else (expected,)
        assert kinds and all(isinstance(kind, type) for kind in kinds)


@pytest.mark.parametrize("name", EVALUATED)
def test_meaning(name):
    assert overrides(EVALUATED[name], "evaluate")


@pytest.mark.parametrize("name", OPS)
def test_derivative_or_reason(name):
    record = OPS[name]
    if record.traits & (ir.Trait.OPAQUE | ir.Trait.TERMINATOR):
        return
    has_partials = getattr(record, "partials", None) is not getattr(Elementwise, "partials", None)
    derivative = overrides(record, "jvp") and (record.jvp is not Elementwise.jvp or has_partials)
    derivative = derivative or overrides(record, "pushed", "linearized")
    assert derivative or record.not_differentiable, "a derivative, or why there is none"


@pytest.mark.parametrize("name", OPS)
def test_shape_rule(name):
    assert overrides(OPS[name], "infer")


@pytest.mark.parametrize(("record", "dtype"), ELEMENTWISE, ids=lambda v: getattr(v, "name", v))
def test_results_have_the_element_type_that_the_shape_rule_gives(record, dtype):
    values = [ir.Value(ir.TensorType(dtype, (2, 3)), None, 0) for _ in range(record.arity)]
    op = record(values)
    expected = ir.DType.BOOL if issubclass(record, Compare) else dtype
    assert op.result.type == ir.TensorType(expected, (2, 3))
    (found,) = op.evaluate(*(np.ones((2, 3), dtype.numpy) for _ in values))
    assert (found.dtype, found.shape) == (expected.numpy, (2, 3))


@pytest.mark.parametrize("name", OPS)
def test_too_few_operands_are_refused(name):
    record = OPS[name]
    if record.arity:
        with pytest.raises(ir.TypeRuleError, match=f"{name} takes {record.arity} operands"):
            record([])


def test_commutative_ops_take_their_operands_in_any_order():
    random = np.random.default_rng(0)
    for record in OPS.values():
        if record.traits & ir.Trait.COMMUTATIVE:
            dtype = ir.DType.BOOL if ir.DType.F32 not in record.accepts else ir.DType.F32
            values = [ir.Value(ir.TensorType(dtype, (9,)), None, 0) for _ in range(2)]
            x, y = (random.integers(0, 3, 9).astype(dtype.numpy) for _ in values)
            op = record(values)
            np.testing.assert_array_equal(op.evaluate(x, y)[0], op.evaluate(y, x)[0])
