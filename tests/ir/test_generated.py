"""Random functions: text form, verifier, evaluator, every pass and the default pipeline."""

import numpy as np
import pytest
from derivative_checks import check_function, run, vjp_function
from generator import Program, programs
from growth_families import BINARY, UNARY, broadcast, reshape, transpose
from growth_flow import if_, scan
from hypothesis import HealthCheck, Phase, given, settings
from test_text import assert_round_trip

from mapsto import ir
from mapsto.ir.core import Module, registered_ops
from mapsto.ir.pass_runner import PassRunner
from mapsto.ir.passes.base import registered_passes
from mapsto.ir.pipeline import DEFAULT
from mapsto.ir.substitution import specialize
from mapsto.ir.value_check import same_values
from mapsto.ir.verifier import verify

PASSES = sorted(
    name for name, r in registered_passes().items() if r.__module__.startswith("mapsto.ir.passes")
)
QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def assert_values(program: Program, module: Module) -> None:
    found = ir.evaluate(module, "f", program.arguments)
    types = [value.dtype for value in program.function.results]
    for dtype, expected, actual in zip(types, program.expected, found, strict=True):
        assert same_values(dtype, expected, actual), (expected, actual)


@given(programs())
@QUICK
def test_generated_functions_are_well_formed(program):
    verify(program.module)
    assert_values(program, program.module)
    assert_round_trip(program.module)


@pytest.mark.parametrize("name", PASSES)
@given(program=programs())
@QUICK
def test_passes_preserve_values(name, program):
    result = PassRunner([registered_passes()[name]()]).run(program.module)
    assert_values(program, result)
    assert_round_trip(result)


@given(programs(most_operations=14))
@settings(QUICK, max_examples=150)
def test_the_default_pipeline_preserves_values(program):
    assert_values(program, PassRunner(DEFAULT).run(program.module))


SMOOTH = (broadcast, transpose, reshape)


@given(programs(most_operations=6, dtypes=[ir.DType.F64], families=[*SMOOTH, scan, scan, if_]))
@settings(QUICK, max_examples=15, phases=[Phase.generate])
def test_derivatives_of_control_flow(program):
    """To order 2, before and after the default pipeline, which has to find the same."""
    function, sizes = program.function, program.sizes
    fixed = specialize(function, sizes)
    if not any(value.dtype.is_float for value in fixed.results):
        return
    check_function(fixed, program.arguments, 2, 1e-4)
    floats = [i for i, value in enumerate(fixed.arguments) if value.dtype.is_float]
    gradient = vjp_function("g", fixed, floats)
    module = Module.of(fixed, gradient)
    seeds = [np.ones(v.shape) for v in fixed.results if v.dtype.is_float]
    expected = run(module, "g", [*program.arguments, *seeds])
    found = ir.evaluate(PassRunner(DEFAULT).run(module), "g", [*program.arguments, *seeds])
    for value, before, after in zip(gradient.results, expected, found, strict=True):
        assert same_values(value.dtype, before, after)


def test_the_generator_reaches_the_ops():
    """All can be drawn; in so few functions a few elementwise ones may be missing."""
    seen = set()

    @given(programs(most_operations=14))
    @settings(QUICK, max_examples=300)
    def collect(program):
        seen.update(op.name for op in program.function.operations())

    collect()
    names = {n for n, r in registered_ops().items() if r.__module__.startswith("mapsto.ir.ops")}
    effects = {"assert", "print"}
    calls = {"call", "custom_call", "remat_call", "custom_tangent", "remat_tangent", "jvp", "vjp"}
    special = {"kernel", "partition", "barrier", *calls, *effects}
    missing = names - seen - special
    assert missing <= {record.name for record in (*UNARY, *BINARY)} and len(missing) <= 5
