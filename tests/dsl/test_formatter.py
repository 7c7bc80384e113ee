"""The canonical layout: fixed cases, and laws on random programs in random layouts."""

from __future__ import annotations

from random import Random

import pytest
from texts import mutate, random_program, scramble

from mapsto.dsl.diagnostics import Collector
from mapsto.dsl.formatter import SyntaxErrors, format_source
from mapsto.dsl.lexer import scan
from mapsto.dsl.parser import parse
from mapsto.dsl.source import Source
from mapsto.dsl.syntax import Program


def program(text: str) -> Program:
    tree, diagnostics = parse(Source("test.mto", text))
    assert diagnostics == []
    return tree


def comments(text: str) -> list[str]:
    source = Source("test.mto", text)
    found = scan(source, Collector()).comments
    return sorted(text[start:end].lstrip("# ").rstrip() for start, end in found)


def check_laws(text: str) -> None:
    """The layout of a text means the same, keeps the comments, and is its own layout."""
    formatted = format_source(text)
    assert program(formatted) == program(text)
    assert comments(formatted) == comments(text)
    assert format_source(formatted) == formatted
    assert not any(line != line.rstrip() for line in formatted.splitlines())


@pytest.mark.parametrize("seed", range(80))
def test_laws_hold_on_random_programs(seed: int) -> None:
    random = Random(seed)
    text = random_program(random)
    check_laws(text)
    check_laws(scramble(random, text))


def test_laws_hold_on_whatever_parses() -> None:
    parsed = 0
    for seed in range(400):
        random = Random(seed)
        text = mutate(random, scramble(random, random_program(random)))
        if not parse(Source("test.mto", text))[1]:
            check_laws(text)
            parsed += 1
    assert parsed > 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("map f(x:f32[n,...s],k:int=1)->f32:x\n", "map f(x: f32[n, ...s], k: int = 1) -> f32: x\n"),
        (
            "map f( ) :\n  let (a,b)=g( x ,k = - 1 )\n  a<-b\n  -a ^ - b\n",
            "map f():\n    let (a, b) = g(x, k=-1)\n    a <- b\n    -a^-b\n",
        ),
        (
            "map f():\n    x[ : ,1 :,: : 2,- 1,2 * a+b*(c * d)] * f(a*b)\n",
            "map f():\n    x[:, 1:, ::2, -1, 2*a + b*(c*d)] * f(a * b)\n",
        ),
        (
            "map f():\n    [... s , i]|->[a*b , (a ,) , f(a ,) , (a , b ,)]\n",
            "map f():\n    [...s, i] |-> [a * b, (a,), f(a), (a, b)]\n",
        ),
        (
            "train T(net=M(a = 1)):\n    loss (x:f32)=g (x)\n",
            "train T(net = M(a=1)):\n    loss(x: f32) = g(x)\n",
        ),
        ("map f(): x\ngradient(dy) : dy\n", "map f(): x\ngradient (dy): dy\n"),
        (
            "map f(): if not a==b then 1 .x else a.b [ 0 ]\n",
            "map f(): if not a == b then 1 .x else a.b[0]\n",
        ),
        (
            "import  nn\n\n\n\nk=1\nmap f():\n\n\n    x\nl=2\n",
            "import nn\n\nk = 1\n\nmap f():\n    x\n\nl = 2\n",
        ),
        ("map f(): - ( a-b )*f( - [ 1 ] )\n", "map f(): -(a - b) * f(-[1])\n"),
        ("", ""),
        ("\n\n#x\n\n\n", "# x\n"),
        ("#!x\n#\n", "#!x\n#\n"),
        ("k = 1#x", "k = 1  # x\n"),
    ],
)
def test_spaces(text: str, expected: str) -> None:
    assert format_source(text) == expected
    check_laws(text)


def test_long_header_breaks_before_its_arrow() -> None:
    parameters = "x: f32[n, c, h, w], k: f32[o, c, r, s], stride: int = 1, pad: int = 0"
    result = "f32[n, o, (h + 2*pad - r) / stride + 1, (w + 2*pad - s) / stride + 1]"
    expected = f"map conv2d({parameters})\n        -> {result}:\n    x\n"
    assert format_source(f"map conv2d({parameters}) -> {result}:\n    x\n") == expected


def test_long_groups_open_one_element_a_line() -> None:
    names = ", ".join(f"parameter{i}: f32" for i in range(8))
    listed = "".join(f"    parameter{i}: f32,\n" for i in range(8))
    assert format_source(f"map f({names}): x\n") == f"map f(\n{listed}): x\n"


def test_indices_stay_on_one_line_where_something_else_can_open() -> None:
    body = "if first_condition[i, j] and second_condition[i, j] then x[i, j] else y[i, j]"
    lambda_text = "[i < first_size, j < second_size] |->"
    text = f"map f():\n    {lambda_text} ({body})\n"
    opened = f"map f():\n    {lambda_text} (\n        {body}\n    )\n"
    assert format_source(text) == format_source(opened) == opened


def test_long_operands_break_before_operators() -> None:
    long = "a" * 60
    text = f"k = ({long} * {long} + {long} - 1)\n"
    expected = f"k = (\n    {long}\n    * {long}\n    + {long}\n    - 1\n)\n"
    assert format_source(text) == expected


def test_comments_stay_where_they_belong() -> None:
    text = """# file

module M():  # header
  # first
  param w: f32[n] ~ zeros # behind

  # above the map
  map (x: f32):
        f(a, # of a
          # above b
          b
          # below
        )
        # end of block
  # end of module
# before g

map g(): x
"""
    assert (
        format_source(text)
        == """# file

module M():  # header
    # first
    param w: f32[n] ~ zeros  # behind

    # above the map
    map (x: f32):
        f(
            a,  # of a
            # above b
            b,
            # below
        )
        # end of block
    # end of module
# before g

map g(): x
"""
    )
    check_laws(text)


def test_docstrings_are_indented_with_their_block() -> None:
    text = 'map f():\n  """One.\n\n      Two.\n    Three.   """\n  x\n'
    expected = 'map f():\n    """One.\n\n      Two.\n    Three.\n    """\n    x\n'
    assert format_source(text) == expected
    check_laws(text)


@pytest.mark.parametrize(
    "text",
    [
        'map f():\n    """\n    One.\n      Two."""\n    x\n',
        'map f():\n    """\n\n    """\n    x\n',
        'map f():\n    """One \\n two\n  \\""""\n    x\n',
        'map f():\n    "one"\n    x\n',
        'k = """a\n   b"""\n',
        'k = f("""a\r\n   b""", [1])\r\n',
    ],
)
def test_strings_keep_their_meaning(text: str) -> None:
    check_laws(text)


def test_wrong_programs_are_refused() -> None:
    with pytest.raises(SyntaxErrors) as caught:
        format_source("map f(:\n")
    assert caught.value.diagnostics
