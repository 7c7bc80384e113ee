"""Steps that differentiate, batch and compute again."""

from __future__ import annotations

from elementwise_steps import tame
from writing import Step, Var, Writer, grow

__all__ = ["DERIVATIVES", "scalar_loss"]


def scalar_loss(w: Writer, inner: Writer, given: Var, steps: int) -> str:
    """The statements of a map to one number, then the number."""
    found = grow(inner, given, steps)
    y = inner.like(found)
    form = inner.random.choice(["sum({} * {}) / 4", "mean(sin({} + {}))", "sum(cos({}) * {}) / 4"])
    value = form.format(found.text, y.text)
    if found.dtype != given.dtype:
        value = f"{given.dtype}({value})"
    return f"{value} + sum({given.text}^2) / 4"


def _loss(w: Writer, x: Var) -> tuple[str, bool]:
    """A map from x, and perhaps a second tensor, to a number; whether it takes two."""
    name, a, b = w.fresh("loss"), w.fresh("a"), w.fresh("b")
    two = w.chance(0.3)
    more = [Var(b, x.dtype, x.shape)] if two else []
    inner = w.inside([*more, Var(a, x.dtype, x.shape)])
    before, w.shared.reverse = w.shared.reverse, True
    value = scalar_loss(w, inner, Var(a, x.dtype, x.shape), w.random.randint(1, 3))
    w.shared.reverse = before
    second = f", {b}: {x.type}" if two else ""
    w.line(f"map {name}({a}: {x.type}{second}) -> {x.dtype}:{w.block(inner, value)}")
    return name, two


def gradient(w: Writer, x: Var) -> Var | None:
    if x.dtype not in ("f32", "f64") or w.depth >= 2 or w.is_loop:
        return None
    name, two = _loss(w, x)
    given = f"{x.text}, {w.like(x).text}" if two else x.text
    kind = w.random.randrange(4)
    if kind == 0:
        options = w.random.choice(["", ", argnums=0"])
        return w.let(tame(w, f"grad({name}{options})({given})"), x.dtype, x.shape)
    value, slope = w.fresh("v"), w.fresh("v")
    if kind == 1:
        w.line(f"let ({value}, {slope}) = value_and_grad({name})({given})")
    elif kind == 2 and not two:
        w.line(f"let ({value}, {slope}) = jvp({name})({given}, {w.like(x).text})")
        w.scope.append(Var(f"tanh({value})", x.dtype))
        return Var(f"tanh({slope})", x.dtype)
    elif two:
        w.line(f"let ({value}, {slope}) = grad({name}, argnums=[0, 1])({given})")
        w.scope.append(Var(f"tanh({value})", x.dtype, x.shape))
        return Var(f"tanh({slope})", x.dtype, x.shape)
    else:
        return w.let(tame(w, f"grad(remat({name}))({given})"), x.dtype, x.shape)
    w.scope.append(Var(f"tanh({value})", x.dtype))
    return Var(f"tanh({slope})", x.dtype, x.shape)


def hessian(w: Writer, x: Var) -> Var | None:
    if x.dtype != "f64" or x.rank > 1 or w.depth >= 1 or w.is_loop:
        return None
    if x.rank and w.size(x.shape[0]) > 5:
        return None
    name, two = _loss(w, x)
    given = f"{x.text}, {w.like(x).text}" if two else x.text
    return w.let(tame(w, f"hessian({name})({given})"), x.dtype, (*x.shape, *x.shape))


def batched(w: Writer, x: Var) -> Var | None:
    """A map applied to each element along an axis."""
    if not x.rank or not x.is_float or w.depth >= 2 or w.is_loop:
        return None
    name, a, b = w.fresh("g"), w.fresh("a"), w.fresh("b")
    axis = w.random.randrange(x.rank)
    element = Var(a, x.dtype, (*x.shape[:axis], *x.shape[axis + 1 :]))
    other = w.floats()
    inner = w.inside([Var(b, other.dtype, other.shape), element], keep=w.chance(0.4))
    found = grow(inner, element, w.random.randint(1, 3))
    head = f"map {name}({a}: {element.type}, {b}: {other.type})"
    w.line(f"{head} -> {found.type}:{w.block(inner, found.text)}")
    axes, shape = f"in_axes=({axis}, none)", (x.shape[axis], *found.shape)
    if found.rank and w.chance(0.3):
        axes, shape = f"{axes}, out_axes=1", (found.shape[0], x.shape[axis], *found.shape[1:])
    return w.let(f"vmap({name}, {axes})({x.text}, {other.text})", found.dtype, shape)


def batched_gradient(w: Writer, x: Var) -> Var | None:
    if x.dtype not in ("f32", "f64") or not x.rank or w.depth >= 1 or w.is_loop:
        return None
    name, two = _loss(w, Var(x.text, x.dtype, x.shape[1:]))
    if two:
        return None
    if w.chance(0.5) and x.rank == 1:
        return w.let(f"[i] |-> tanh(grad({name})({x.text}[i]))", x.dtype, x.shape)
    return w.let(tame(w, f"vmap(grad({name}))({x.text})"), x.dtype, x.shape)


CUSTOM = (
    "map bend[T](x: T[...s]) -> T[...s]:\n    tanh(x) / 2\ngradient (dy):\n"
    "    (1 - 4 * y * y) * dy / 2\n",
    "map product_of(x: f64[...s], z: f64[...s]) -> f64[...s]:\n    x * z / 2\ngradient (dy):\n"
    "    (z * dy / 2, x * dy / 2)\n",
    "map steps(x: f64[...s]) -> f64[...s]:\n    floor(4 * x + 0.5) / 4\n"
    "gradient unchecked (dy):\n    dy\n",
    "map both(x: f64[...s]) -> (f64[...s], f64[...s]):\n    (sin(x), cos(x))\n"
    "gradient (da, db):\n    cos(x) * da - sin(x) * db\n",
)


def custom(w: Writer, x: Var) -> Var | None:
    """A map with a gradient written by hand."""
    if x.dtype != "f64":
        return None
    text = w.random.choice(CUSTOM)
    if text not in w.shared.definitions:
        w.shared.definitions.append(text)
    name = text.split()[1].split("(")[0].split("[")[0]
    second = f", {w.like(x).text}" if name == "product_of" else ""
    call = f"{name}({x.text}{second})"
    if name == "both":
        call = f"{call}[{w.random.randint(0, 1)}]"
    return w.let(call, x.dtype, x.shape)


def constant_part(w: Writer, x: Var) -> Var | None:
    if not x.is_float:
        return None
    return w.let(f"{x.text} - stop_gradient({w.like(x).text}) / 2", x.dtype, x.shape)


def again(w: Writer, x: Var) -> Var | None:
    """A map that a gradient computes again."""
    if not x.is_float or w.depth >= 2 or w.is_loop:
        return None
    name, a = w.fresh("g"), w.fresh("a")
    inner = w.inside([Var(a, x.dtype, x.shape)])
    found = grow(inner, Var(a, x.dtype, x.shape), w.random.randint(1, 3))
    w.line(f"map {name}({a}: {x.type}) -> {found.type}:{w.block(inner, found.text)}")
    return w.let(f"remat({name})({x.text})", found.dtype, found.shape)


DERIVATIVES: tuple[Step, ...] = (
    *(gradient, gradient, hessian, batched, batched, batched_gradient, custom, constant_part),
    again,
)
