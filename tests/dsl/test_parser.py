"""Every construct of the language gives the tree that it should."""

from __future__ import annotations

import pytest

from mapsto.dsl.operators import BinaryOperator
from mapsto.dsl.parser import parse
from mapsto.dsl.source import Source
from mapsto.dsl.syntax import (
    Binary,
    Binding,
    Block,
    Boolean,
    Conditional,
    Expression,
    ExpressionStatement,
    Float,
    For,
    FromImport,
    Identifier,
    If,
    Import,
    Index,
    IndexLambda,
    Integer,
    Let,
    ListExpression,
    MapDefinition,
    MetricDefinition,
    ModuleDefinition,
    Name,
    Node,
    Program,
    Slice,
    Spread,
    Statement,
    StateUpdate,
    String,
    TargetTuple,
    TrainDefinition,
    TupleExpression,
    TupleType,
    Unary,
    ValueType,
    walk,
)
from mapsto.dsl.targets import target_names


def program(text: str) -> Program:
    tree, diagnostics = parse(Source("test.mto", text))
    assert diagnostics == []
    return tree


def statements(*lines: str) -> tuple[Statement, ...]:
    body = "".join(f"    {line}\n" for line in lines)
    definition = program(f"map f(x: f32) -> f32:\n{body}").definitions[0]
    assert isinstance(definition, MapDefinition)
    return definition.body.statements


def expression(text: str) -> Expression:
    statement = statements("let a = 1", text)[1]
    assert isinstance(statement, ExpressionStatement)
    return statement.value


def spelled(node: Node) -> str:
    """An expression with all its brackets."""
    if isinstance(node, Binary):
        return f"({spelled(node.left)} {node.operator.value} {spelled(node.right)})"
    if isinstance(node, Unary):
        return f"({node.operator.value} {spelled(node.operand)})"
    return node.span.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + b * c", "(a + (b * c))"),
        ("a - b - c", "((a - b) - c)"),
        ("a * b / c % d @ e", "((((a * b) / c) % d) @ e)"),
        ("-a ^ b", "(- (a ^ b))"),
        ("a ^ -b ^ c", "(a ^ (- (b ^ c)))"),
        ("a ^ b ^ c", "(a ^ (b ^ c))"),
        ("-a * b", "((- a) * b)"),
        ("--a", "(- (- a))"),
        ("not a == b", "(not (a == b))"),
        ("a or b and not c", "(a or (b and (not c)))"),
        ("a + b < c * d", "((a + b) < (c * d))"),
        ("(a + b) * c", "((a + b) * c)"),
        ("a != b or c >= d and e <= f", "((a != b) or ((c >= d) and (e <= f)))"),
    ],
)
def test_precedence(text: str, expected: str) -> None:
    assert spelled(expression(text)) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", Integer),
        ("1_000", Integer),
        ("0xFF", Integer),
        ("1.5", Float),
        ("1e-3", Float),
        (".5", Float),
        ("1.", Float),
        ("true", Boolean),
        ('"a"', String),
    ],
)
def test_literals(text: str, value: type[Expression]) -> None:
    assert type(expression(text)) is value


def test_literal_values() -> None:
    values = expression(
        r'[0xFF, 1_000, 1e-3, .5, true, "a\n\"\u{e9}\\", """x""", 9223372036854775807]'
    )
    assert isinstance(values, ListExpression)
    assert [getattr(item, "value", None) for item in values.items] == [
        255,
        1000,
        0.001,
        0.5,
        True,
        'a\n"é\\',
        "x",
        2**63 - 1,
    ]


def test_index_lambda() -> None:
    node = expression("[...s, i] |-> x[...s, i] + 1")
    assert isinstance(node, IndexLambda)
    assert [binder.span.text for binder in node.binders] == ["...s", "i"]
    assert isinstance(node.binders[0], Spread)
    assert isinstance(node.body, Binary)


def test_nested_index_lambdas_reach_to_the_right() -> None:
    node = expression("[i] |-> [j] |-> if i < j then 1 else 0 + 2")
    assert isinstance(node, IndexLambda)
    assert isinstance(node.body, IndexLambda)
    assert isinstance(node.body.body, Conditional)
    assert node.body.body.otherwise.span.text == "0 + 2"


def test_reduction_is_a_call_of_an_index() -> None:
    node = expression("sum[k](x[k])")
    assert node == expression("sum [ k ] ( x [ k ] )")


def test_slices() -> None:
    node = expression("x[:, 1:, :2, ::3, a:b:c, ..., ...s, -1]")
    assert isinstance(node, Index)
    kinds = [type(item) for item in node.items]
    assert kinds == [Slice, Slice, Slice, Slice, Slice, Spread, Spread, Unary]
    full = node.items[4]
    assert isinstance(full, Slice)
    assert [part.span.text for part in (full.start, full.stop, full.step) if part] == [
        "a",
        "b",
        "c",
    ]
    step = node.items[3]
    assert isinstance(step, Slice)
    assert (step.start, step.stop, step.step) == (None, None, Integer(node.span, 3))


def test_calls_attributes_and_tuples() -> None:
    node = expression("nn.chain(layers, axis=-1,)(x).y[0]")
    assert node.span.text == "nn.chain(layers, axis=-1,)(x).y[0]"
    assert isinstance(expression("(a,)"), TupleExpression)
    assert isinstance(expression("(a, b,)"), TupleExpression)
    assert isinstance(expression("(a)"), Name)
    assert expression("[]") == ListExpression(node.span, ())


def test_statements() -> None:
    let, pair, nested, typed, update, loop, branch = statements(
        "let a = x",
        "let (b, c) = f(x)",
        "let (b, (c, d)) = f(x)",
        "let d: f32[n] = x",
        "a <- a + 1",
        "for i in range(3): i",
        "if a: 1\n    elif b:\n        2\n    else:\n        3",
    )
    assert isinstance(let, Let)
    assert isinstance(pair, Let)
    assert list(target_names(pair.target)) == ["b", "c"]
    assert pair == statements("let b, c = f(x)")[0]
    assert isinstance(nested, Let)
    assert isinstance(nested.target, TargetTuple)
    assert list(target_names(nested.target.items[1])) == ["c", "d"]
    assert isinstance(typed, Let)
    assert isinstance(typed.type, ValueType)
    assert isinstance(update, StateUpdate)
    assert isinstance(loop, For)
    assert isinstance(branch, If)
    assert isinstance(branch.otherwise, Block)
    inner = branch.otherwise.statements[0]
    assert isinstance(inner, If)
    assert inner.otherwise is not None


def test_less_than_negative_needs_a_space() -> None:
    assert isinstance(expression("a < -b"), Binary)
    assert isinstance(statements("a <-b")[0], StateUpdate)


def test_map() -> None:
    text = '''map f[T, U](x: T[...s, 2*d, (h - r) / 2 + 1], g: map, k: int = 1)
        -> (T[...s], f32):
    """What it does.

      More,
    and more.
    """
    x
gradient (dy, dz):
    dy
'''
    definition = program(text).definitions[0]
    assert isinstance(definition, MapDefinition)
    assert [generic.name for generic in definition.generics] == ["T", "U"]
    assert [parameter.name.name for parameter in definition.parameters] == ["x", "g", "k"]
    assert isinstance(definition.result, TupleType)
    assert definition.docstring is not None
    assert definition.docstring.text == "What it does.\n\n  More,\nand more."
    assert definition.gradient is not None
    assert [name.name for name in definition.gradient.parameters] == ["dy", "dz"]
    assert definition.span.text == text.strip()
    assert definition.body.span.text == "x"


def test_map_on_one_line_and_without_result_type() -> None:
    short = program("map f(x: f32): x + 1").definitions[0]
    long = program("map f(x: f32):\n    x + 1\n").definitions[0]
    assert short == long


def test_lone_string_is_a_value() -> None:
    definition = program('map f() -> str:\n    "a"\n').definitions[0]
    assert isinstance(definition, MapDefinition)
    assert definition.docstring is None


def test_module() -> None:
    definition = program(
        '''module Dense[T](units: int, activation: map = identity):
    """A layer."""
    param w: T[d, units] ~ uniform(-1, 1)
    param b: T[units]
    state t: f32 = 0
    state u: f32[]
    inner = [Dense(3), Dense(4)]

    map (x: T[...s, d]) -> T[...s, units]: x
    map named(x: T[d]) -> T[d]:
        x
'''
    ).definitions[0]
    assert isinstance(definition, ModuleDefinition)
    assert definition.docstring is not None
    assert [type(member).__name__ for member in definition.members] == [
        "ParamDeclaration",
        "ParamDeclaration",
        "StateDeclaration",
        "StateDeclaration",
        "Binding",
        "MapDefinition",
        "MapDefinition",
    ]
    call = definition.members[5]
    assert isinstance(call, MapDefinition)
    assert call.name is None


def test_train() -> None:
    definition = program(
        """train Digits(net = MLP(), optimizer = Adam(lr=1e-3), rate: f32 = 1):
    scale = 2
    loss(x: f32[n, 64], y: i32[n]) = f(net(x), y)
    metric accuracy(x: f32[n, 64], y: i32[n]) -> f32:
        let z = net(x)
        mean(z == y)
"""
    ).definitions[0]
    assert isinstance(definition, TrainDefinition)
    assert [parameter.type is None for parameter in definition.parameters] == [True, True, False]
    metric = definition.members[2]
    assert isinstance(metric, MetricDefinition)
    assert metric.name.name == "accuracy"
    assert len(metric.body.statements) == 2


def test_soft_keywords_are_names_elsewhere() -> None:
    lines = (
        "let loss = param",
        "let state = metric + gradient",
        "loss(x)",
        "gradient (x)",
        "state",
    )
    assert len(statements(*lines)) == 5


def test_imports_and_constants() -> None:
    tree = program(
        '"""About."""\nimport nn\nimport a.b as c\nimport "./f.mto" as m\n'
        'from optim import Adam, SGD as S\nfrom "./f.mto" import X\nk = 3\n'
    )
    assert tree.docstring is not None
    package, dotted, file, names, from_file, constant = tree.definitions
    assert isinstance(package, Import)
    assert isinstance(dotted, Import)
    assert (dotted.path.text, dotted.path.is_file) == ("a.b", False)
    assert dotted.alias == Identifier(tree.span, "c")
    assert isinstance(file, Import)
    assert (file.path.text, file.path.is_file) == ("./f.mto", True)
    assert isinstance(names, FromImport)
    assert [name.alias and name.alias.name for name in names.names] == [None, "S"]
    assert isinstance(from_file, FromImport)
    assert isinstance(constant, Binding)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n   ", "\n    # comment"])
def test_line_endings_and_byte_order_mark(ending: str, mark: str, last: str) -> None:
    text = (
        'map f(x: f32,\n  # inside\n  y: f32)\n\n    -> f32:\n    """a\n    b"""\n    # own\n    x'
    )
    assert program(mark + (text + last).replace("\n", ending)) == program(text)


def test_spans_nest_and_name_their_text() -> None:
    text = "map f(x: f32[n, ...s]) -> f32[n]:\n    let é = (x + 1) @ x[1:]\n    é\n"
    for node in walk(program(text)):
        for inner in walk(node):
            assert node.span.start <= inner.span.start <= inner.span.end <= node.span.end
        if isinstance(node, Name | Identifier):
            assert node.span.text == node.name


def test_operator_span() -> None:
    node = expression("a +  b")
    assert isinstance(node, Binary)
    assert node.operator is BinaryOperator.ADD
    assert node.operator_span.text == "+"


def test_a_mistake_costs_only_its_line() -> None:
    tree, diagnostics = parse(
        Source(
            "test.mto",
            "module M():\n    param w f32[n]\n    map (x: f32):\n        let = 3\n        x\n"
            "    state t: f32 = 0\n\nmap g(x: f32): x\n",
        )
    )
    assert len(diagnostics) == 2
    module, following = tree.definitions
    assert isinstance(module, ModuleDefinition)
    assert [type(m).__name__ for m in module.members] == [
        "Broken",
        "MapDefinition",
        "StateDeclaration",
    ]
    assert following == program("map g(x: f32): x").definitions[0]
