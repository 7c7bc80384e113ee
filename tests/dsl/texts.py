"""Random programs, random layouts of them, and random damage to them.

All come from a `random.Random`, so a seed names a text.
"""

from __future__ import annotations

from random import Random

__all__ = ["mutate", "noise", "random_program", "scramble"]

NAMES = ["x", "y", "weights", "loss", "state", "param", "i", "beta1", "é", "metric", "gradient"]
NUMBERS = ["0", "1", "64", "1e-3", "0.5", ".5", "2.", "0xFF", "1_000"]
STRINGS = ['"same"', '"a # b"', '"(\\n"', '"""long"""']
INFIX = ["+", "-", "*", "/", "%", "@", "^", "==", "<", ">=", "and", "or"]


def random_program(random: Random) -> str:
    """A program without mistakes, in a plain layout."""
    makers = [_map, _map, _module, _train, _import, _binding]
    head = '"""About\nthis file."""\n' if random.random() < 0.2 else ""
    return head + "".join(random.choice(makers)(random) for _ in range(random.randint(1, 4)))


def _name(random: Random) -> str:
    return random.choice(NAMES)


def _expression(random: Random, depth: int = 3) -> str:
    if depth == 0 or random.random() < 0.2:
        return random.choice(
            [_name(random), random.choice(NUMBERS), random.choice(STRINGS), "true"]
        )
    makers = [_infix, _infix, _infix, _call, _index, _brackets, _lambda, _conditional, _prefix]
    return random.choice(makers)(random, depth - 1)


def _infix(random: Random, depth: int) -> str:
    return f"({_expression(random, depth)}) {random.choice(INFIX)} {_operand(random, depth)}"


def _operand(random: Random, depth: int) -> str:
    return random.choice([_name(random), _call(random, depth), f"({_expression(random, depth)})"])


def _prefix(random: Random, depth: int) -> str:
    return random.choice([f"-{_operand(random, depth)}", f"not {_operand(random, depth)}"])


def _call(random: Random, depth: int) -> str:
    arguments = [_expression(random, depth) for _ in range(random.randint(0, 3))]
    if random.random() < 0.3:
        arguments.append(f"axis={_expression(random, depth)}")
    index = f"[{_name(random)}]" if random.random() < 0.3 else ""
    attribute = f".{_name(random)}" if random.random() < 0.2 else ""
    comma = "," if arguments and random.random() < 0.2 else ""
    return f"{_name(random)}{attribute}{index}({', '.join(arguments)}{comma})"


def _index(random: Random, depth: int) -> str:
    a, b = _operand(random, depth), _operand(random, depth)
    items = [a, f"{a}:", f":{b}", "::2", f"{a}:{b}:{a}", "...s", "...", f"2 * {a} - {b}"]
    chosen = [random.choice(items) for _ in range(random.randint(1, 3))]
    return f"{_name(random)}[{', '.join(chosen)}]"


def _brackets(random: Random, depth: int) -> str:
    a, b = _expression(random, depth), _expression(random, depth)
    name, other = random.sample(NAMES, 2)
    record = f"({name} = {a}, {other} = {b})"
    made = f"[{a} for {name} in {b}]"
    chosen = f"[{a} for {name} in {b} if {_operand(random, depth)}]"
    plain = [f"[{a}, {b}]", "[]", f"({a},)", f"({a}, {b},)", f"({a})"]
    return random.choice([*plain, record, f"({name} = {a})", made, chosen])


def _lambda(random: Random, depth: int) -> str:
    return f"([...s, {_name(random)}] |-> {_expression(random, depth)})"


def _conditional(random: Random, depth: int) -> str:
    a, b, c = (_expression(random, depth) for _ in range(3))
    return f"(if {a} then {b} else {c})"


def _type(random: Random) -> str:
    plain = ["f32[n, ...s]", "i32", "map", "T[2 * n, (h - r) / 2 + 1]", "f32[]"]
    return random.choice([*plain, "(f32, i32[n])", "(a: f32[n], b: (c: i32, d: f32))"])


def _parameters(random: Random) -> str:
    types = [f"{_name(random)}: {_type(random)}" for _ in range(random.randint(0, 3))]
    if random.random() < 0.3:
        types.append(f"k: int = {_expression(random, 1)}")
    return ", ".join(types)


def _statement(random: Random, indent: str, depth: int) -> str:
    value = _expression(random)
    simple = [
        f"let {_name(random)} = {value}",
        f"let (a, b): {_type(random)} = {value}",
        f"{_name(random)} <- {value}",
        value,
    ]
    if depth == 0 or random.random() < 0.8:
        return f"{indent}{random.choice(simple)}\n"
    block = _block(random, indent + "    ", depth - 1)
    return random.choice(
        [
            f"{indent}if {value}:\n{block}{indent}elif x: y\n{indent}else:\n{block}",
            f"{indent}for i in {value}:\n{block}",
        ]
    )


def _block(random: Random, indent: str, depth: int = 1) -> str:
    docstring = f'{indent}"""Text.\n\n{indent}  More of it.\n{indent}"""\n'
    statements = [_statement(random, indent, depth) for _ in range(random.randint(1, 3))]
    return (docstring if random.random() < 0.2 else "") + "".join(statements)


def _map(random: Random, indent: str = "", name: str = "f[T]") -> str:
    result = f" -> {_type(random)}" if random.random() < 0.7 else ""
    header = f"{indent}map {name}({_parameters(random)}){result}:"
    if random.random() < 0.3:
        return f"{header} {_expression(random)}\n"
    gradient = f"{indent}gradient (dy): dy\n" if random.random() < 0.2 else ""
    return f"{header}\n{_block(random, indent + '    ')}{gradient}"


def _module(random: Random) -> str:
    members = [
        f"    param w: {_type(random)} ~ {_expression(random, 1)}\n",
        f"    state t: {_type(random)} {random.choice('=~')} {_expression(random, 1)}\n",
        f"    layers = {_expression(random)}\n",
        _map(random, "    ", ""),
    ]
    chosen = random.sample(members, random.randint(1, 4))
    return f"module M({_parameters(random)}):\n{''.join(chosen)}"


def _train(random: Random) -> str:
    members = [
        f"    loss({_parameters(random)}) = {_expression(random)}\n",
        f"    metric accuracy({_parameters(random)}):\n{_block(random, '        ')}",
    ]
    return f"train T(net = {_expression(random, 2)}):\n{''.join(members)}"


def _import(random: Random) -> str:
    return random.choice(["import a.b as c\n", "from optim import Adam, SGD as S\n"])


def _binding(random: Random) -> str:
    return f"k = {_expression(random)}\n"


def scramble(random: Random, text: str) -> str:
    """The same program in another layout: blank lines, comments, spaces, breaks in brackets."""
    lines = []
    for line in text.split("\n"):
        if '"""' in line or line.strip().startswith("More") or line == "this file.":
            lines.append(line)
            continue
        if random.random() < 0.2:
            lines.append(random.choice(["", "", "  # own", "#own", "        # deep"]))
        behind = random.choice(["", "", "", "  ", "  # behind", "#behind"]) if line else ""
        lines.append(_loosen(random, line) + behind)
    return "\n".join(lines)


def _loosen(random: Random, line: str) -> str:
    """Add blanks where blanks are, and line breaks inside brackets."""
    depth, quoted, out = 0, False, ""
    start = len(line) - len(line.lstrip())
    for position, character in enumerate(line):
        quoted ^= character == '"'
        out += character
        if quoted or position < start:
            continue
        depth += (character in "([") - (character in ")]")
        if depth and character in "([," and random.random() < 0.15:
            out += random.choice([" ", "\n          ", " # inside\n      ", "\n  # own\n\n       "])
        elif character == " " and random.random() < 0.2:
            out += "  "
    return out


PIECES = [
    *NAMES,
    *NUMBERS,
    *INFIX,
    *"()[]{}:,.~=<>|#\"'\\$?!&;\t\r\n\0\ufeff\u2028\u00a0\N{GRINNING FACE}",
    "    ",
    "\n    ",
    '"""',
    "->",
    "|->",
    "<-",
    "...",
    "map ",
    "module ",
    "train ",
    "let ",
    "if ",
    "then ",
    "else ",
    "param ",
    "import ",
    "1x",
    "9" * 40,
    "1e999",
    "\\u{110000}",
]


def noise(random: Random, length: int) -> str:
    """Pieces of the language and of nothing, in any order."""
    return "".join(random.choice(PIECES) for _ in range(length))


def mutate(random: Random, text: str) -> str:
    """A text with some characters deleted, doubled, moved or replaced."""
    for _ in range(random.randint(1, 5)):
        start = random.randrange(len(text) + 1)
        end = min(len(text), start + random.choice([1, 1, 2, 5, 30]))
        part = random.choice(["", text[start:end] * 2, random.choice(PIECES), text[end : end + 20]])
        text = text[:start] + part + text[end:]
    return text
