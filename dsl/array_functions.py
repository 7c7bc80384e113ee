"""All functions of whole arrays that the elaborator knows, by name."""

from __future__ import annotations

from collections.abc import Mapping

from mapsto.dsl.ordering import ORDERING
from mapsto.dsl.padding import PADDING
from mapsto.dsl.parts import PARTS
from mapsto.dsl.rearranging import REARRANGING
from mapsto.dsl.scattering import SCATTERING
from mapsto.dsl.shaping import SHAPING
from mapsto.dsl.values import Value

__all__ = ["ARRAY_FUNCTIONS"]

ARRAY_FUNCTIONS: Mapping[str, Value] = {
    **SHAPING,
    **REARRANGING,
    **PADDING,
    **ORDERING,
    **SCATTERING,
    **PARTS,
}
"""The functions by name."""
