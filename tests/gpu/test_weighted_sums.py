"""Sums weighted by exponentials on a GPU: one kernel, in which the interpreter of loops finds no
race, and the results of the evaluator."""

from __future__ import annotations

from collections.abc import Sequence

import mapped_harness
import numpy as np
import pytest

from mapsto import ir
from mapsto.compiler import Options
from mapsto.ir.core import Function

PROGRAMS = """
map weighted(q: T[b, t, d], k: T[b, s, d], v: T[b, s, e]):
    attention(q, k, v)
"""
