"""The interpreter runs kernels that LLVM compiled, and they compute what they should."""

from __future__ import annotations

import pytest
from ptx_kernels import RUNS, ptx_of


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("name", RUNS)
def test_kernels(name: str, optimize: bool) -> None:
    RUNS[name](ptx_of(name, optimize=optimize))
