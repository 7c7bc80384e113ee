"""Steps of what leaves no trace in a compiled program: tuples, records, lists, maps of maps, loops
and branches on what is known, configuration."""

from __future__ import annotations

from elementwise_steps import BOUNDED, tame
from writing import Step, Var, Writer, grow, type_text

__all__ = ["STRUCTURES"]


def tuples(w: Writer, x: Var) -> Var | None:
    """A tuple, taken apart or indexed."""
    y = w.floats()
    if w.chance(0.5):
        first, second = w.fresh("v"), w.fresh("v")
        head = f"let ({first}, {second})" if w.chance(0.5) else f"let {first}, {second}"
        w.line(f"{head} = ({x.text}, {y.text})")
        w.scope.append(Var(second, y.dtype, y.shape))
        return Var(first, x.dtype, x.shape)
    name = w.fresh("t")
    w.line(f"let {name} = ({x.text}, ({y.text},))")
    if w.chance(0.5):
        return w.let(f"{name}[0]", x.dtype, x.shape)
    return w.let(f"{name}[1][0]", y.dtype, y.shape)


def records(w: Writer, x: Var) -> Var | None:
    y, name = w.floats(), w.fresh("r")
    w.line(f"let {name} = (low = {x.text}, high = (part = {y.text}, same = {x.text}))")
    if w.chance(0.5):
        return w.let(f"{name}.high.part", y.dtype, y.shape)
    return w.let(f"{name}.low", x.dtype, x.shape)


def lists(w: Writer, x: Var) -> Var | None:
    """A list of tensors, made by a comprehension, that a loop goes through."""
    if not x.is_float:
        return None
    items, total, item = w.fresh("l"), w.fresh("v"), w.fresh("it")
    condition = w.random.choice(["", f" if {item} != 1", f" if {item} % 2 == 0"])
    source = w.random.choice(["range(3)", "[0, 2]", "range(1, 4)", "[1] + [4, 2]"])
    w.line(f"let {items} = [{x.text} * {item} / 4 for {item} in {source}{condition}]")
    if w.chance(0.5):
        return w.let(tame(w, f"{items}[0] + len({items})"), x.dtype, x.shape)
    w.line(f"let {total} = {x.text}")
    w.line(f"for {item} in {items}:\n    let {total} = tanh({total} + {item})")
    return Var(total, x.dtype, x.shape)


def static_loop(w: Writer, x: Var) -> Var | None:
    """A loop that is unrolled, with statements and a branch on its number."""
    if not x.is_float or w.is_loop:
        return None
    name, item = w.fresh("v"), w.fresh("it")
    w.line(f"let {name} = {x.text}")
    inner = w.inside([Var(name, x.dtype, x.shape)])
    inner.is_loop = True
    found = grow(inner, Var(name, x.dtype, x.shape), 1)
    same = found if (found.dtype, found.shape) == (x.dtype, x.shape) else Var(name, x.dtype)
    body = [*inner.lines, f"let {name} = ({name} + sin({same.text})) / 2"]
    if w.chance(0.6):
        body += [f"if {item} == 1:", f"    let {name} = {name} * 0.5"]
        if w.chance(0.5):
            body += ["else:", f"    let {name} = -{name}"]
    w.line(f"for {item} in range({w.random.randint(1, 3)}):")
    w.line("\n".join(f"    {line}" for line in body))
    return Var(name, x.dtype, x.shape)


def static_branch(w: Writer, x: Var) -> Var | None:
    """A branch on what is known: the other branch is not even looked at."""
    if not x.is_float or w.depth >= 2:
        return None
    name = w.fresh("v")
    conditions = [f"{x.text}.rank > 1", f"{x.rank} == 2 or {x.rank} == 3", '"soft" == "hard"']
    conditions += ["2 * 3 >= 7", "not true", "none == none", "1 < 2 and 2 <= 2", "true != false"]
    if x.rank:
        conditions += [f"len({x.text}) == len({x.text})"]
    first, second, third = w.random.choices(BOUNDED, k=3)
    w.line(f"let {name} = {x.text}")
    w.line(f"if {w.random.choice(conditions)}:\n    let {name} = {first}({name})")
    if w.chance(0.4):
        w.line(f"elif {w.random.choice(conditions)}:\n    let {name} = {second}({name}) / 2")
    if w.chance(0.6):
        w.line(f"else:\n    let {name} = {third}({name}) / 2")
    return Var(name, x.dtype, x.shape)


def local_map(w: Writer, x: Var) -> Var | None:
    """A map inside the map, which sees what is around it; used once or twice."""
    if not x.is_float or w.depth >= 3 or w.is_loop:
        return None
    name, given = w.fresh("g"), w.fresh("a")
    inner = w.inside([Var(given, x.dtype, x.shape)])
    found = grow(inner, inner.scope[-1], w.random.randint(1, 3))
    result = f" -> {found.type}" if w.chance(0.5) else ""
    head = f"map {name}({given}: {x.type}){result}:"
    w.line(head + w.block(inner, found.text))
    call = f"{name}({x.text})"
    if w.chance(0.3) and (found.dtype, found.shape) == (x.dtype, x.shape):
        call = f"{name}({call})"
    if w.chance(0.2):
        call = f"identity({name})({x.text})"
    return w.let(call, found.dtype, found.shape)


def helper(w: Writer, x: Var) -> Var | None:
    """A map of its own, generic in sizes and dtype, with default and named arguments."""
    if not x.is_float or x.rank > 2:
        return None
    name = w.fresh("help")
    dims = ["p", "q"][: x.rank]
    generic = w.chance(0.5)
    own = type_text("T" if generic else x.dtype, [])
    type_ = f"{own}[{', '.join(dims)}]" if dims else own
    if w.chance(0.3):
        type_ = f"{own}[...s]"
    head = f"map {name}{'[T]' if generic else ''}(a: {type_}, scale: {own} = 0.5, times: int = 1)"
    body = ["let b = a", "for step in range(times):", "    let b = tanh(b * scale + 0.1)", "b"]
    if w.chance(0.3):
        body = [f"if times == 0 then a else {name}(tanh(a * scale), scale, times - 1)"]
    about = w.random.choice(["A map.", 'Says \\"a\\".', "Bounded.\n\n    In many lines."])
    doc = f'    """{about}"""\n'
    lines = "".join(f"    {line}\n" for line in body)
    result = f" -> {type_}" if w.chance(0.7) else ""
    w.shared.definitions.append(f"{head}{result}:\n{doc if w.chance(0.4) else ''}{lines}")
    options = ["", ", 0.25", ", times=2", ", scale=0.75, times=3", f", {x.dtype}(0.5)"]
    return w.let(f"{name}({x.text}{w.random.choice(options)})", x.dtype, x.shape)


def map_argument(w: Writer, x: Var) -> Var | None:
    """A map that takes maps: of the library, a local one, partial, chained, a number."""
    if not x.is_float:
        return None
    name = "applied"
    text = (
        "map applied(f: map, x: any, times: int = 2):\n"
        "    let y = x\n    for step in range(times):\n        let y = f(y)\n    y\n"
    )
    if text not in w.shared.definitions:
        w.shared.definitions.append(text)
    first, second = w.random.choices(BOUNDED, k=2)
    maps = [first, f"chain([{first}, {second}])", "partial(clip, low=-0.5, high=0.5)"]
    maps += [f"chain(each({first}, 2) + [{second}])", "partial(leaky_relu, slope=0.2)"]
    f = w.random.choice(maps)
    return w.let(f"{name}({f}, {x.text}{w.random.choice(['', ', 1', ', times=3'])})", *_of(x))


def _of(x: Var) -> tuple[str, tuple]:
    return x.dtype, x.shape


def optional_argument(w: Writer, x: Var) -> Var | None:
    if not x.is_float:
        return None
    text = (
        'map optional(x: any, mask: any = none, rate: map = 0.5, mode: str = "soft"):\n'
        "    let kept = if mask == none then x else where(mask, x, 0.1)\n"
        '    if mode == "soft":\n        kept * rate(1)\n    else:\n        tanh(kept)\n'
    )
    if text not in w.shared.definitions:
        w.shared.definitions.append(text)
    options = ["", f", {x.text} > 0", ", none, 0.25", ', mode="hard"', ", rate=0.75"]
    return w.let(f"optional({x.text}{w.random.choice(options)})", *_of(x))


def recursion(w: Writer, x: Var) -> Var | None:
    """A map that calls itself until a number is reached."""
    if not x.is_float or not x.rank:
        return None
    text = (
        "map halved(x: any, depth: int):\n"
        "    if depth == 0:\n        x\n    elif depth == 1:\n        sin(x)\n"
        "    else:\n        0.5 * (halved(tanh(x), depth - 1) + halved(x, depth - 2))\n"
    )
    if text not in w.shared.definitions:
        w.shared.definitions.append(text)
    return w.let(f"halved({x.text}, {w.random.randint(0, 4)})", *_of(x))


def structured_helper(w: Writer, x: Var) -> Var | None:
    """A map whose argument and result are a tuple and a record."""
    if not x.is_float or x.rank != 1:
        return None
    name = w.fresh("spread")
    own = x.dtype
    w.shared.definitions.append(
        f"map {name}(pair: ({own}[k], {own})) -> (low: {own}, rest: {own}[k]):\n"
        "    let (a, b) = pair\n    (low = min(a) + b / 4, rest = a - mean(a))\n"
    )
    found = w.fresh("r")
    scalar = w.scalar()
    number = scalar.text if scalar.dtype == own else f"{own}({scalar.text})"
    w.line(f"let {found} = {name}(({x.text}, {number}))")
    if w.chance(0.4):
        return w.let(f"{found}.low", own)
    return w.let(f"{found}.rest", own, x.shape)


def constants(w: Writer, x: Var) -> Var | None:
    """A named value of the file, configuration arithmetic, `at_least`, text."""
    if not x.is_float:
        return None
    text = 'widths = [at_least(3, 2, "the width"), 2^3 - 1, 7 / 2]\nrate = 0.25\n'
    if text not in w.shared.definitions:
        w.shared.definitions.append(text)
    form = w.random.choice(["{x} * rate", "{x} / widths[0]", "({x} - rate) / widths[2]"])
    return w.let(form.replace("{x}", x.text), *_of(x))


STRUCTURES: tuple[Step, ...] = (
    *(tuples, records, lists, static_loop, static_branch, local_map, local_map, helper, helper),
    *(map_argument, optional_argument, recursion, structured_helper, constants),
)
