"""The functions that the compiler knows, without those of ops that other tests have registered."""

from mapsto.dsl.builtins import builtins
from mapsto.ir.core import registered_ops

__all__ = ["own_functions"]


def own_functions() -> frozenset[str]:
    """Names of built-in functions that are the project's own."""
    records = registered_ops().values()
    foreign = {r.name for r in records if not r.__module__.startswith("mapsto.")}
    return frozenset(builtins()) - foreign
