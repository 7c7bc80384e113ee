"""All functions of whole arrays that the elaborator knows, by name."""

from __future__ import annotations

from collections.abc import Mapping

from mapsto.dsl.padding import PADDING
from mapsto.dsl.rearranging import REARRANGING
from mapsto.dsl.shaping import SHAPING
from mapsto.dsl.values import Value

__all__ = ["ARRAY_FUNCTIONS"]

ARRAY_FUNCTIONS: Mapping[str, Value] = {**SHAPING, **REARRANGING, **PADDING}
"""The functions by name."""
