"""Ops that extensions have given a lowering: one of an extension, or one of ours with another row.

What such an op becomes is known to this process alone.
"""

from __future__ import annotations

from mapsto.ir.core import Operation

__all__ = ["EXTENDED"]

EXTENDED: set[type[Operation]] = set()
"""The classes of these ops."""
