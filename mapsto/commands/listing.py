"""`mapsto passes` and `mapsto ops`: what is registered, a line each."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping

from mapsto.ir.plugins import load_plugins

__all__ = ["ops", "passes"]


def passes(options: argparse.Namespace) -> int:
    """Lists the passes, the default pipeline and the rewrite rules that can stand in one."""
    from mapsto.ir.passes.base import registered_passes
    from mapsto.ir.pipeline import DEFAULT
    from mapsto.ir.rewriting import registered_patterns

    load_plugins(options.plugin)
    described = {name: _summary(record) for name, record in registered_passes().items()}
    print(f"default = {','.join(pass_.name for pass_ in DEFAULT)}\n")
    _print_table(described)
    rules = {name: _first_line(rule.description) for name, rule in registered_patterns().items()}
    print("\nrewrite rules, each a pass of its own when named:\n")
    _print_table(rules)
    return 0


def ops(options: argparse.Namespace) -> int:
    """Lists the ops of the tensor IR."""
    from mapsto import ir
    from mapsto.ir.core import registered_ops

    assert ir.Mul is not None  # importing the package registers the ops
    load_plugins(options.plugin)
    _print_table({name: _summary(record) for name, record in registered_ops().items()})
    return 0


def _summary(record: type) -> str:
    return _first_line(inspect.getdoc(record) or "")


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _print_table(described: Mapping[str, str]) -> None:
    width = max(map(len, described), default=0)
    for name in sorted(described):
        print(f"{name:<{width}}  {described[name]}".rstrip())
