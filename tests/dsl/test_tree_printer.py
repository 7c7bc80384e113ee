"""The printed form of the syntax tree."""

from __future__ import annotations

from mapsto.dsl.parser import parse
from mapsto.dsl.source import Source
from mapsto.dsl.tree_printer import print_tree

PROGRAM = """module M(k: int = 1):
    param w: f32[d, 2*k] ~ zeros

    map (x: f32[...s, d]) -> f32[...s]:
        let (a, b) = f(x, axis=-1)
        [i, j] |-> a[i, 1:] if true
"""

EXPECTED = """Program @1:1
  definitions:
    ModuleDefinition name=M @1:1
      parameters:
        Parameter name=k @1:10
          type: ValueType name=int @1:13
          default: Integer value=1 @1:19
      members:
        ParamDeclaration name=w @2:5
          type: ValueType name=f32 @2:14
            shape:
              Name name='d' @2:18
              Binary operator=* @2:21
                left: Integer value=2 @2:21
                right: Name name='k' @2:23
          initializer: Name name='zeros' @2:28
        MapDefinition @4:5
          parameters:
            Parameter name=x @4:10
              type: ValueType name=f32 @4:13
                shape:
                  Spread name=s @4:17
                  Name name='d' @4:23
          result: ValueType name=f32 @4:30
            shape:
              Spread name=s @4:34
          body: Block @5:9
            statements:
              Let @5:9
                target: TargetTuple items=[a, b] @5:14
                value: Call @5:22
                  function: Name name='f' @5:22
                  arguments:
                    Argument @5:24
                      value: Name name='x' @5:24
                    Argument name=axis @5:27
                      value: Unary operator=- @5:32
                        operand: Integer value=1 @5:33
              Broken @6:9"""


def test_printed_tree() -> None:
    tree, diagnostics = parse(Source("test.mto", PROGRAM))
    assert len(diagnostics) == 1
    assert print_tree(tree) == EXPECTED
