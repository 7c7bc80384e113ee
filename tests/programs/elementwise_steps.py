"""Steps of elements: functions, operators, numbers, comparisons, conversions of dtypes."""

from __future__ import annotations

from writing import FLOATS, INTEGERS, Step, Var, Writer, brackets

__all__ = ["ELEMENTWISE", "tame"]

BOUNDED = ("tanh", "sin", "cos", "sigmoid", "erf", "abs", "sign", "identity", "stop_gradient")
BOUNDED += ("softsign", "hardtanh", "relu", "atan", "hardsigmoid", "logsigmoid", "tanhshrink")
CAREFUL = ("exp({}) / 4", "expm1({}) / 4", "log(2.5 + {})", "log1p(abs({}))", "sqrt(abs({}) + 0.1)")
CAREFUL += ("rsqrt(1 + {}^2)", "0.5 / (2 + abs({}))", "sinh({}) / 4", "cosh({}) / 8", "gelu({})")
CAREFUL += ("asinh({})", "logaddexp({}, 0.3) / 2", "exp2({}) / 4", "softplus({}) / 4", "-{}")
CAREFUL += ("floor(2.7 * {}) / 4", "ceil(1.3 * {}) / 4", "round(3.1 * {}) / 4", "silu({}) / 2")
CAREFUL += ("square({})", "clip({}, -0.4, 0.6)", "polynomial({}, [0.2, -0.3, 0.4])", "cbrt({})")
"""Functions that need a factor or an offset to stay near the range from -1 to 1."""
PAIRS = ("0.5 * ({} + {})", "0.5 * ({} - {})", "{} * {}", "maximum({}, {})", "minimum({}, {})")
PAIRS += ("{} / (1.5 + abs({}))", "hypot({}, {}) / 2", "atan2({}, 2 + {}) / 2")
PAIRS += ("pow(1.2 + abs({}), {}) / 3", "mod({}, 0.7 + abs({}))", "({} % (0.6 + {}^2))")
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")


def tame(w: Writer, text: str) -> str:
    """An expression whose elements are near the range from -1 to 1, of any other one."""
    return w.random.choice(["tanh({})", "sin({})", "softsign({})"]).format(text)


def unary(w: Writer, x: Var) -> Var | None:
    if not x.is_float:
        return None
    forms = [f"{name}({{}})" for name in BOUNDED] + list(CAREFUL)
    return w.let(w.random.choice(forms).replace("{}", x.text), x.dtype, x.shape)


def binary(w: Writer, x: Var) -> Var | None:
    if not x.is_float:
        return None
    y = w.like(x)
    return w.let(w.random.choice(PAIRS).format(x.text, y.text), x.dtype, x.shape)


def with_number(w: Writer, x: Var) -> Var | None:
    if not x.is_float:
        return None
    forms = ("{x} / 2 + {c}", "{c} * {x} / 2", "({c} - {x}) / 2", "{x}^2", "{x}^3", "-{x}^2 / 2")
    forms += ("(2 + {x})^-1", "(1 + {x}^2)^0.5 / 2", "if {x} > {c} then {x} / 2 else 0.1")
    form = w.random.choice(forms).replace("{x}", x.text).replace("{c}", w.number(x.dtype))
    return w.let(f"({form}) / 1.5", x.dtype, x.shape)


def broadcast_operands(w: Writer, x: Var) -> Var | None:
    """Operands of different ranks, as NumPy broadcasts them."""
    if not x.is_float or not x.rank:
        return None
    y = w.pick(lambda v: v.dtype == x.dtype and v.rank < x.rank and _ends(x, v))
    if y is None:
        return None
    operands = [x.text, y.text]
    w.random.shuffle(operands)
    operator = w.random.choice(["*", "+", "-"])
    return w.let(f"({operands[0]} {operator} {operands[1]}) / 2", x.dtype, x.shape)


def _ends(x: Var, y: Var) -> bool:
    return x.shape[x.rank - y.rank :] == y.shape


def chosen(w: Writer, x: Var) -> Var | None:
    y = w.like(x)
    test = f"{x.text} {w.random.choice(COMPARISONS[2:])} {y.text}"
    if x.dtype == "bool":
        test = x.text
    if w.chance(0.5):
        return w.let(f"where({test}, {y.text}, {x.text})", x.dtype, x.shape)
    return w.let(f"if {test} then {x.text} else {y.text}", x.dtype, x.shape)


def truth(w: Writer, x: Var) -> Var | None:
    if x.dtype == "bool":
        y = w.like(x)
        forms = ("{} and {}", "{} or not {}", "not ({} and {})", "{} == {}", "{} != {}")
        return w.let(w.random.choice(forms).format(x.text, y.text), "bool", x.shape)
    operator = w.random.choice(COMPARISONS)
    return w.let(f"{x.text} {operator} {w.like(x).text}", "bool", x.shape)


def conversion(w: Writer, x: Var) -> Var | None:
    """To another dtype, in either notation."""
    if x.dtype in INTEGERS:
        to = w.random.choice([w.dtype, *INTEGERS])
        if to == w.dtype:
            return w.let(f"{to}({x.text} % 7) / 8", to, x.shape)
        return w.let(f"cast({x.text}, {to})", to, x.shape)
    if x.dtype == "bool":
        to = w.random.choice([w.dtype, *INTEGERS])
        return w.let(f"{to}({x.text})", to, x.shape)
    to = w.random.choice([w.dtype, w.dtype, "i32", "i64", "i16", "i8", "bool"])
    if to in FLOATS:
        between = w.random.choice(["f32", w.dtype])
        return w.let(f"{to}(cast({x.text}, {between}))", to, x.shape)
    text = x.text if to == "bool" else f"(10.3 * {x.text})"
    return w.let(f"cast({text}, {to})", to, x.shape)


def whole_numbers(w: Writer, x: Var) -> Var | None:
    """Integers wrap around; division rounds down."""
    found = x if x.dtype in INTEGERS else w.pick(lambda v: v.dtype in INTEGERS)
    if found is None:
        return None
    y, c = w.like(found), w.random.choice(["1", "2", "3", "7", "100"])
    forms = ("{x} + {y}", "{x} * {y}", "{x} - {y}", "{x} * {c}", "{x} / {c}", "{x} % {c}", "-{x}")
    forms += ("maximum({x}, {y})", "minimum({x}, {c})", "{x}^2", "abs({x})", "sign({x})")
    forms += ("{x} % {y}", "where({x} > {y}, {x}, {c})", "mod({x}, {c})", "{x} / {y}")
    text = w.random.choice(forms).replace("{x}", found.text).replace("{y}", y.text)
    return w.let(text.replace("{c}", c), found.dtype, found.shape)


def integer_reduction(w: Writer, x: Var) -> Var | None:
    found = w.pick(lambda v: v.dtype in INTEGERS and v.rank > 0)
    if found is None:
        return None
    name = w.random.choice(["sum", "max", "min", "prod"])
    axis = w.random.randrange(found.rank)
    shape = (*found.shape[:axis], *found.shape[axis + 1 :])
    return w.let(f"{name}({found.text}, axis={axis})", found.dtype, shape)


def truth_reduction(w: Writer, x: Var) -> Var | None:
    found = w.pick(lambda v: v.dtype == "bool" and v.rank > 0)
    if found is None:
        return None
    name, dtype = w.random.choice([("any", "bool"), ("all", "bool"), ("sum", "i32")])
    axis = w.random.randrange(found.rank)
    shape = (*found.shape[:axis], *found.shape[axis + 1 :])
    return w.let(f"{name}({found.text}, axis={axis})", dtype, shape)


def special_values(w: Writer, x: Var) -> Var | None:
    """Infinities and nan, which functions find and replace."""
    if not x.is_float:
        return None
    forms = ("isnan(0 * (1 / relu({x})))", "isinf(1 / relu({x}))", "isfinite({x} / relu({x}))")
    if w.chance(0.5):
        return w.let(w.random.choice(forms).replace("{x}", x.text), "bool", x.shape)
    text = f"clip(nan_to_num(1 / relu({x.text}), limit=2), -1, 1)"
    return w.let(text, x.dtype, x.shape)


def constant(w: Writer, x: Var) -> Var | None:
    dtype, shape = x.dtype, x.shape
    if not shape:
        return w.let(f"{dtype}({w.number(dtype)})", dtype)
    if w.chance(0.5):
        name = w.fresh("v")
        w.line(f"let {name}: {x.type} = full({brackets(shape)}, {w.number(dtype)})")
        return Var(name, dtype, shape)
    text = f"broadcast({dtype}({w.number(dtype)}), {brackets(shape)})"
    return w.let(text, dtype, shape)


ELEMENTWISE: tuple[Step, ...] = (
    *(
        unary,
        unary,
        unary,
        unary,
        binary,
        binary,
        with_number,
        broadcast_operands,
        chosen,
        truth,
        conversion,
    ),
    *(whole_numbers, integer_reduction, truth_reduction, special_values, constant),
)
