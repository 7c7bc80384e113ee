"""Steps of what runs: loops, branches, effects, random numbers."""

from __future__ import annotations

from writing import Step, Var, Writer, brackets, grow, type_text

__all__ = ["EFFECTS", "FLOW"]


def scan(w: Writer, x: Var) -> Var | None:
    """A loop along the first axis of a tensor, which carries one or two tensors."""
    if not x.rank or w.depth >= 3 or w.is_loop or not x.is_float:
        return None
    state = w.floats()
    c, e, step = w.fresh("c"), w.fresh("e"), w.fresh("s")
    element = Var(e, x.dtype, x.shape[1:])
    carried = Var(c, state.dtype, state.shape)
    counts = w.chance(0.3)
    number = Var(w.fresh("k"), "i32")
    inner = w.inside([carried, element, *([number] if counts else [])])
    carry, new_type, init = c, state.type, state.text
    if counts:
        carry, init = w.fresh("c"), f"({state.text}, 1)"
        new_type = f"({state.type}, i32)"
        inner.line(f"let ({c}, {number.text}) = {carry}")
    out = grow(inner, element, w.random.randint(1, 4))
    new = _next(inner, carried)
    new_text = f"({new}, {number.text} * 3 + 1)" if counts else new
    head = f"map {step}({carry}: {new_type}, {e}: {element.type})"
    if w.chance(0.5):
        head += f" -> ({new_type}, {out.type})"
    w.line(f"{head}:{w.block(inner, f'({new_text}, {out.text})')}")
    option = ", reverse=true" if w.chance(0.3) else ""
    return _results(w, f"scan({step}, {init}, {x.text}{option})", state, out, x.shape[0], counts)


def _next(inner: Writer, carried: Var) -> str:
    """What a step carries on: near what it was given."""
    same = inner.pick(lambda v: (v.dtype, v.shape) == (carried.dtype, carried.shape)) or carried
    form = inner.random.choice(["0.5 * ({0} + {1})", "tanh({0} + 0.5 * {1})", "{1}", "{0} * {1}"])
    return form.format(carried.text, same.text)


def _results(
    w: Writer, text: str, state: Var, out: Var, extent: object, counts: bool
) -> Var | None:
    last, outputs = w.fresh("v"), w.fresh("v")
    w.line(f"let ({last}, {outputs}) = {text}")
    if counts:
        final, number = w.fresh("v"), w.fresh("v")
        w.line(f"let ({final}, {number}) = {last}")
        w.scope.append(Var(number, "i32"))
        last = final
    w.scope.append(Var(last, state.dtype, state.shape))
    stacked = (extent, *out.shape)
    return Var(outputs, out.dtype, stacked) if w.fits(stacked) else None


def counted_scan(w: Writer, x: Var) -> Var | None:
    """A loop of a number of steps that gives a record, without a sequence."""
    if not x.is_float or w.depth >= 3 or w.is_loop:
        return None
    c, i, step, r = w.fresh("c"), w.fresh("it"), w.fresh("s"), w.fresh("r")
    inner = w.inside([Var(c, x.dtype, x.shape), Var(i, "i32")])
    out = grow(inner, Var(c, x.dtype, x.shape), 2)
    new = _next(inner, Var(c, x.dtype, x.shape))
    value = f"({new}, (first = {out.text}, number = {i}))"
    w.line(f"map {step}({c}: {x.type}, {i}: i32):{w.block(inner, value)}")
    last, length = w.fresh("v"), w.random.randint(1, 4)
    w.line(f"let ({last}, {r}) = scan({step}, {x.text}, length={length})")
    w.scope += [Var(last, x.dtype, x.shape), Var(f"{r}.number", "i32", (length,))]
    shape = (length, *out.shape)
    return Var(f"{r}.first", out.dtype, shape) if w.fits(shape) else None


def two_sequences(w: Writer, x: Var) -> Var | None:
    """A loop along two tensors at once, that carries a record."""
    y = w.pick(lambda v: v.dtype == x.dtype and v.rank > 0 and v.shape[:1] == x.shape[:1])
    if not x.is_float or not x.rank or y is None or w.is_loop:
        return None
    step, result, carry = w.fresh("s"), w.fresh("v"), w.fresh("c")
    a, b = type_text(x.dtype, x.shape[1:]), type_text(y.dtype, y.shape[1:])
    w.line(
        f"map {step}({carry}: (total: {a}, count: i32), pair: ({a}, {b})):\n"
        f"    let (one, other) = pair\n"
        f"    let total = tanh({carry}.total + one * sum(other))\n"
        f"    ((total = total, count = {carry}.count + 1), (total, other))"
    )
    start = f"(total = {w.of_shape(x.dtype, x.shape[1:])}, count = 0)"
    w.line(f"let {result} = scan({step}, {start}, ({x.text}, {y.text}))")
    w.scope.append(Var(f"{result}[0].count", "i32"))
    return Var(f"{result}[1][0]", x.dtype, x.shape)


def while_loop(w: Writer, x: Var) -> Var | None:
    """Repeats a step while a number is below a bound."""
    if not x.is_float or w.depth >= 3 or w.is_loop:
        return None
    more, step, pair, c, k = (w.fresh(p) for p in ("w", "s", "p", "c", "k"))
    carried = Var(c, x.dtype, x.shape)
    w.line(f"map {more}({pair}: ({x.type}, i32)) -> bool: {pair}[1] < {w.random.randint(0, 4)}")
    inner = w.inside([carried])
    inner.line(f"let ({c}, {k}) = {pair}")
    grow(inner, carried, w.random.randint(1, 3))
    value = f"({_next(inner, carried)}, {k} + {w.random.randint(1, 2)})"
    w.line(f"map {step}({pair}: ({x.type}, i32)) -> ({x.type}, i32):{w.block(inner, value)}")
    bound = w.random.choice(["", ", bound=5", ", bound=2"])
    if w.shared.reverse:
        bound = bound or ", bound=4"
    last, count = w.fresh("v"), w.fresh("v")
    start = w.random.choice(["0", "1", "i32(2)"])
    w.line(f"let ({last}, {count}) = while({more}, {step}, ({x.text}, {start}){bound})")
    w.scope.append(Var(count, "i32"))
    return Var(last, x.dtype, x.shape)


def branch(w: Writer, x: Var) -> Var | None:
    """A branch on a truth value that the program computes."""
    if not x.is_float or w.depth >= 3 or w.is_loop:
        return None
    name, condition = w.fresh("v"), w.condition()
    w.line(f"let {name} = {x.text}")
    own = Var(name, x.dtype, x.shape)
    w.line(f"if {condition}:{w.block(*_branch(w, own))}")
    if w.chance(0.3):
        w.line(f"elif {w.condition()}:{w.block(*_branch(w, own))}")
    if w.chance(0.6):
        w.line(f"else:{w.block(*_branch(w, own))}")
    return own


def _branch(w: Writer, own: Var) -> tuple[Writer, str]:
    inner = w.inside([own])
    grow(inner, own, w.random.randint(1, 3))
    return inner, f"let {own.text} = {_next(inner, own)}"


def branch_of_values(w: Writer, x: Var) -> Var | None:
    """A branch that is an expression."""
    if not x.is_float:
        return None
    condition, y = w.condition(), w.like(x)
    return w.let(f"if {condition} then cos({x.text}) else {y.text} / 2", x.dtype, x.shape)


def printed(w: Writer, x: Var) -> Var | None:
    if x.dtype in ("f16", "bf16") or w.is_loop:
        return None
    number = w.random.choice([Var(f"size({x.text})", "i32"), *([x] if x.dtype == "i32" else [])])
    forms = ['print("here")', f'print("sizes {{}} and {{}}", {number.text}, 3)']
    forms.append(f'print("of", {number.text})')
    w.line(w.random.choice(forms))
    return None


def asserted(w: Writer, x: Var) -> Var | None:
    forms = ["assert(1 < 2)", 'assert(true, "known")']
    if x.is_float:
        forms += [f'assert(all(abs({x.text}) < 1e4), "it is small")', f"assert(any({x.text} < 9))"]
    w.line(w.random.choice(forms))
    return None


def key(w: Writer) -> str:
    """A key for random numbers."""
    forms = [str(w.random.randint(0, 99)), f"fold_key({w.random.randint(0, 9)}, 3)"]
    forms += [f"next_key({w.random.randint(0, 9)})", "split_key(5, 2)[1]"]
    return w.random.choice(forms)


def random_numbers(w: Writer, x: Var) -> Var | None:
    if not x.rank:
        return None
    dtype, shape = ("f64" if w.dtype == "f64" else "f32"), brackets(x.shape)
    forms = [f"uniform({key(w)}, -1, 1, shape={shape})"]
    forms += [f"normal({key(w)}, std=0.3, shape={shape})"]
    forms += [f"truncated_normal({key(w)}, std=0.3, shape={shape})"]
    if w.chance(0.6):
        name = w.fresh("v")
        w.line(f"let {name}: {type_text(dtype, x.shape)} = {w.random.choice(forms)}")
        return Var(name, dtype, x.shape)
    whole = [(f"bernoulli({key(w)}, 0.4, shape={shape})", "bool", x.shape)]
    whole += [(f"randint({key(w)}, -3, 9, shape={shape})", "i32", x.shape)]
    whole += [("permutation(7, 6)", "i32", (6,))]
    whole += [(f"random({key(w)}, stream=1, shape={shape})", "f32", x.shape)]
    whole += [(f"random_bits({key(w)}, shape={shape})", "i64", x.shape)]
    return w.let(*w.random.choice(whole))


FLOW: tuple[Step, ...] = (
    *(scan, scan, counted_scan, two_sequences, while_loop, while_loop, branch, branch),
    *(branch_of_values, random_numbers),
)
EFFECTS: tuple[Step, ...] = (printed, asserted, asserted)
