"""The programs of a fixed sample of seeds reach every construct, builtin and op."""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from agreement import elaborations
from own_functions import own_functions
from programs import write_program

from mapsto import ir
from mapsto.dsl import builder, syntax
from mapsto.dsl.diagnostics import Collector
from mapsto.dsl.parser import parse
from mapsto.dsl.source import Source
from mapsto.ir.core import Module, registered_ops
from mapsto.ir.passes.differentiate import Differentiate

READ = range(500)
ELABORATED = range(1000)

UNREACHED_RULES = {
    "broken": "stands for a line that does not parse",
    "import_file": "a program is one file",
}
UNREACHED_BUILTINS: dict[str, str] = {
    "initial": "only in initializers of the library",
    "in_precision": "rounds products on purpose, so that the tolerance of the rest would be lost",
}
UNREACHED_OPS = {
    "custom_tangent": "stands in linear parts while these are transposed only",
    "remat_tangent": "stands in linear parts while these are transposed only",
    "kernel": "made by fusion, behind the tensor level",
    "partition": "made by a pass for one target, behind the tensor level",
}
ABSTRACT = {"Node", "Expression", "Broken"}


@functools.cache
def sample() -> tuple[tuple[syntax.Program, ...], Counter[str]]:
    """The trees of the programs, and how often each action of the builder ran to make them."""
    reached: Counter[str] = Counter()
    actions = builder.Builder.actions.fget
    assert actions is not None

    def counted(self: builder.Builder) -> object:
        def count(name, action):
            def call(*parts):
                reached[name] += 1
                return action(*parts)

            return call

        return {name: count(name, action) for name, action in actions(self).items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder.Builder, "actions", property(counted))
        found = [parse(Source("program.mto", write_program(seed).text)) for seed in READ]
    assert not any(diagnostics for _, diagnostics in found)
    return tuple(tree for tree, _ in found), reached


@functools.cache
def nodes() -> tuple[syntax.Node, ...]:
    trees, _ = sample()
    return tuple(node for tree in trees for node in syntax.walk(tree))


def missing(wanted: Iterable[str], found: Iterable[str], excused: Iterable[str]) -> set[str]:
    """What is not reached; what is excused has to be out of reach indeed."""
    reached = set(found)
    needless = reached & set(excused)
    assert not needless, "these are reached: they need no excuse"
    return set(wanted) - reached - set(excused)


def test_kinds_of_nodes() -> None:
    kinds = {
        name
        for name, value in vars(syntax).items()
        if isinstance(value, type) and issubclass(value, syntax.Node) and value is not syntax.Node
    }
    assert not missing(kinds, (type(node).__name__ for node in nodes()), ABSTRACT)


def test_operators() -> None:
    used = {node.operator for node in nodes() if isinstance(node, syntax.Binary | syntax.Unary)}
    assert used == {*syntax.BinaryOperator, *syntax.UnaryOperator}


def test_rules_of_the_grammar() -> None:
    """Each rule or alias that makes a node is a method of the builder."""
    _, reached = sample()
    rules = set(builder.Builder(Source("program.mto", ""), Collector()).actions)
    grammar = Path(builder.__file__).with_name("grammar.lark").read_text()
    named = set(re.findall(r"^\??([a-z]\w*)(?:\{|:|$)|-> (\w+)", grammar, re.MULTILINE))
    assert {name for pair in named for name in pair if name} >= rules - {""}
    assert not missing(rules, reached, UNREACHED_RULES)


def test_builtins() -> None:
    names = {node.name for node in nodes() if isinstance(node, syntax.Name)}
    names |= {node.name.name for node in nodes() if isinstance(node, syntax.ValueType)}
    assert not missing(own_functions(), names & own_functions(), UNREACHED_BUILTINS)


def ops_in(module: Module) -> Iterator[str]:
    def inside(block: ir.Block) -> Iterator[str]:
        for op in block.operations:
            yield op.name
            for region in op.regions:
                yield from inside(region.block)

    for function in module.functions.values():
        yield from inside(function.block)


def ops_of(seed: int) -> set[str]:
    """The ops of a program, before and after differentiation."""
    with contextlib.redirect_stdout(io.StringIO()):
        module = next(elaborations(write_program(seed))).elaborated.module
    return {*ops_in(module), *ops_in(Differentiate().run(module))}


def test_ops() -> None:
    """Those of the language; the first programs that reach them all are enough."""
    wanted = {
        name for name, op in registered_ops().items() if op.__module__.startswith("mapsto.ir")
    }
    found: set[str] = set()
    for seed in ELABORATED:
        found |= ops_of(seed) & wanted
        if found == wanted - UNREACHED_OPS.keys():
            break
    assert not missing(wanted, found, UNREACHED_OPS)
