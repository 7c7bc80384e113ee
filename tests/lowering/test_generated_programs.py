"""Random functions over all ops, optimized and native, against the reference evaluator."""

import numpy as np
import pytest
from generator import programs
from harness import Native, machines
from hypothesis import HealthCheck, given, settings

from mapsto.ir.bodies import alias_pairs
from mapsto.ir.pass_runner import PassRunner
from mapsto.ir.pipeline import DEFAULT
from mapsto.ir.value_check import same_values


@pytest.mark.parametrize("passes", [(), DEFAULT], ids=["as written", "default"])
@given(program=programs())
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_native_code_agrees_with_the_reference(passes, program):
    function = PassRunner(passes).run(program.module)["f"]
    native = Native(function, machines()[0])
    arguments = [np.array(array) for array in program.arguments]
    results = native(arguments)
    assert not isinstance(results, int), f"error code {results}"
    aliases, rest = dict(alias_pairs(function)), iter(results)
    for i, (value, expected) in enumerate(zip(function.results, program.expected, strict=True)):
        actual = arguments[aliases[i]] if i in aliases else next(rest)
        assert same_values(value.dtype, expected, actual), (expected, actual)
