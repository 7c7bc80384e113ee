"""Array functions natively, several in one program, against NumPy."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from array_cases import ARRAY_CASES, Case

import mapsto as mt

DTYPES = {"f": "f64", "i": "i32"}


def programs() -> list[list[Case]]:
    """The cases, those with the same arguments together."""
    groups: defaultdict[tuple[Any, ...], list[Case]] = defaultdict(list)
    for case in ARRAY_CASES:
        groups[tuple((name, id(array)) for name, array in case[1].items())].append(case)
    return list(groups.values())


@pytest.mark.parametrize("cases", programs(), ids=lambda cases: cases[0][0])
def test_native_code(cases: list[Case]) -> None:
    arguments = cases[0][1]
    parameters = ", ".join(
        f"{name}: {DTYPES[value.dtype.kind]}[{', '.join(f'{name}{i}' for i in range(value.ndim))}]"
        for name, value in arguments.items()
    )
    texts = ",\n".join(f"        {text}" for text, _, _ in cases)
    library = mt.loads(f"map f({parameters}):\n    (\n{texts},\n    )\n")
    found = library.f(**arguments)
    for (text, _, reference), value in zip(cases, found, strict=True):
        expected = reference(*arguments.values())
        assert value.shape == np.shape(expected), text
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-14, err_msg=text)


def test_triangles_have_the_diagonal() -> None:
    library = mt.loads(
        "map low(x: f32[n, m]): tril(x)\nmap up(x: f32[n, m]): triu(x)\n"
        "map above(x: f32[n, m]): triu(x, 1)\n"
    )
    x = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(library.low(x), np.tril(x))
    np.testing.assert_array_equal(library.up(x), np.triu(x))
    np.testing.assert_array_equal(library.above(x), np.triu(x, 1))
