"""Steps in index notation: affine and gathered access, reductions, bounds, groups of indices."""

from __future__ import annotations

from elementwise_steps import tame
from writing import Step, Var, Writer, brackets

__all__ = ["INDEX_NOTATION"]

INDICES = "ijkl"


def _access(x: Var, names: list[str]) -> str:
    return f"{x.text}{brackets(names)}" if x.rank else x.text


def _lambda(binders: list[str], body: str) -> str:
    return f"{brackets(binders)} |-> {body}" if binders else body


def permuted(w: Writer, x: Var) -> Var | None:
    """The elements at other places: transposed, broadcast along a new index, on a diagonal."""
    if not x.rank or x.rank > 3 or not x.is_float:
        return None
    names = list(INDICES[: x.rank])
    order = list(range(x.rank))
    w.random.shuffle(order)
    binders = [names[a] for a in order]
    shape = [x.shape[a] for a in order]
    body = w.random.choice(["{}", "{} / 2", "tanh({})"]).format(_access(x, names))
    if w.chance(0.3):
        dim = w.random.choice(w.shared.dims)
        at = w.random.randint(0, x.rank)
        binders.insert(at, f"p < {dim}")
        shape.insert(at, dim)
        body = f"sin({body} + p)" if w.chance(0.5) else body
    return w.let(_lambda(binders, body), x.dtype, shape)


def diagonal(w: Writer, x: Var) -> Var | None:
    if x.rank != 2 or x.shape[0] != x.shape[1]:
        return None
    if w.chance(0.5) and x.is_float:
        return w.let(f"tanh(sum[i]({x.text}[i, i]))", x.dtype)
    return w.let(f"[i] |-> {x.text}[i, i]", x.dtype, x.shape[:1])


def shifted(w: Writer, x: Var) -> Var | None:
    """Affine access, which reads zero outside."""
    if not x.rank or x.rank > 3 or not x.is_float:
        return None
    names = list(INDICES[: x.rank])
    axis = w.random.randrange(x.rank)
    forms = ("{i} - 1", "{i} + 1", "2*{i}", "2*{i} + 1", "{d} - 1 - {i}", "{i} - 2", "3*{i} - 1")
    form = w.random.choice(forms).format(i=names[axis], d=x.shape[axis])
    moved = [*names[:axis], form, *names[axis + 1 :]]
    binders = [f"{name} < {dim}" for name, dim in zip(names, x.shape, strict=True)]
    body = _access(x, moved)
    if w.chance(0.5):
        body = f"({body} - {_access(x, names)}) / 2"
    return w.let(_lambda(binders, body), x.dtype, x.shape)


def window(w: Writer, x: Var) -> Var | None:
    """A reduction over a window that moves, as a convolution or a pooling does."""
    if not x.rank or x.rank > len(INDICES) or not x.is_float:
        return None
    width, stride = w.random.randint(1, 3), w.random.randint(1, 2)
    extent = (x.shape[-1] - width) // stride + 1
    names = list(INDICES[: x.rank])
    place = f"{stride}*{names[-1]} + r" if stride > 1 else f"{names[-1]} + r"
    binders = [*names[:-1], f"{names[-1]} < {extent}"]
    read = _access(x, [*names[:-1], place])
    kernel = w.pick(lambda v: v.dtype == x.dtype and v.rank == 1 and v.shape[0] == width)
    if kernel is not None and w.chance(0.7):
        body = f"sum[r]({read} * {kernel.text}[r]) / {width}"
        return w.let(_lambda(binders, body), x.dtype, (*x.shape[:-1], extent))
    name = w.reduction(x, ["max", "min", "mean", "prod"])
    body = f"{name}[r < {width}]({read})"
    return w.let(_lambda(binders, body), x.dtype, (*x.shape[:-1], extent))


def reduction(w: Writer, x: Var) -> Var | None:
    if not x.rank or x.rank > 4 or not x.is_float:
        return None
    names = list(INDICES[: x.rank])
    bound = sorted(w.random.sample(names, w.random.randint(1, x.rank)))
    free = [name for name in names if name not in bound]
    name = w.reduction(x, ["sum", "mean", "max", "min", "prod"])
    y = w.like(x)
    inside = w.random.choice(["{}", "{}^2", "{} * {}", "cos({})", "if {} > 0.2 then {} else 0.1"])
    texts = iter([_access(x, names), _access(y, names)])
    body = "".join(part if part != "{}" else next(texts) for part in _pieces(inside))
    shape = [d for name, d in zip(INDICES, x.shape, strict=False) if name in free]
    return w.let(tamed_lambda(w, free, f"{name}{brackets(bound)}({body})"), x.dtype, shape)


def _pieces(form: str) -> list[str]:
    return [part for piece in form.split("{}") for part in (piece, "{}")][:-1]


def tamed_lambda(w: Writer, free: list[str], body: str) -> str:
    """An index lambda whose elements stay small."""
    return _lambda(free, tame(w, body))


def contraction(w: Writer, x: Var) -> Var | None:
    """A product of two or three tensors, summed over what they share."""
    if not x.rank or x.rank > 3 or not x.is_float:
        return None
    names = dict(enumerate(INDICES[: x.rank]))
    extents = {names[a]: x.shape[a] for a in range(x.rank)}
    factors = [_access(x, list(names.values()))]
    for _ in range(w.random.randint(1, 2)):
        y = w.floats()
        if y.dtype != x.dtype or not y.rank or y.rank > 3:
            continue
        own = [_index(w, extents, dim) for dim in y.shape]
        factors.append(_access(y, own))
    free = [i for i in extents if w.chance(0.5)][:3]
    bound = [i for i in extents if i not in free]
    if not bound or len(extents) > 5:
        return None
    body = f"sum{brackets(bound)}({' * '.join(factors)})"
    return w.let(tamed_lambda(w, free, body), x.dtype, [extents[i] for i in free])


def _index(w: Writer, extents: dict[str, object], dim: object) -> str:
    """An index for an axis: one that runs as far, or a new one."""
    same = [name for name, extent in extents.items() if extent == dim]
    if same and w.chance(0.8):
        return w.random.choice(same)
    name = w.fresh("c")
    extents[name] = dim
    return name


def gather(w: Writer, x: Var) -> Var | None:
    """An index that is itself an element of a tensor."""
    if not x.rank or x.rank > 2:
        return None
    dim = w.random.choice(w.shared.dims)
    ids = w.let(w.integers((dim,), x.shape[0]), "i32", (dim,))
    if ids is None:
        return None
    if x.rank == 1:
        return w.let(f"[i] |-> {x.text}[{ids.text}[i]]", x.dtype, (dim,))
    if w.chance(0.5):
        return w.let(f"{x.text}[{ids.text}]", x.dtype, (dim, x.shape[1]))
    body = f"{x.text}[{ids.text}[i], j]"
    return w.let(f"[i, j] |-> {body}", x.dtype, (dim, x.shape[1]))


def places(w: Writer, x: Var) -> Var | None:
    """The position of the greatest or the least element."""
    if not x.rank or x.rank > 3 or not x.is_float:
        return None
    name = w.random.choice(["argmax", "argmin"])
    if w.chance(0.5):
        return w.let(f"{name}({x.text}, axis=-1)", "i32", x.shape[:-1])
    names = list(INDICES[: x.rank])
    body = f"{name}[{names[-1]}]({_access(x, names)})"
    return w.let(_lambda(names[:-1], body), "i32", x.shape[:-1])


def quantifier(w: Writer, x: Var) -> Var | None:
    if not x.rank or x.rank > 3 or x.dtype == "bool":
        return None
    names = list(INDICES[: x.rank])
    name = w.random.choice(["any", "all"])
    body = f"{name}[{names[0]}]({_access(x, names)} > 0)"
    return w.let(_lambda(names[1:], body), "bool", x.shape[1:])


def group(w: Writer, x: Var) -> Var | None:
    """`...s` stands for any number of indices."""
    if not x.rank or not x.is_float:
        return None
    if w.chance(0.5):
        text = f"[...s, i] |-> {x.text}[...s, i] - max[j]({x.text}[...s, j])"
        return w.let(f"({text}) / 4", x.dtype, x.shape)
    return w.let(f"[...s] |-> mean[j]({x.text}[...s, j])", x.dtype, x.shape[:-1])


def masked(w: Writer, x: Var) -> Var | None:
    """A condition on positions."""
    if x.rank != 2 or not x.is_float:
        return None
    test = w.random.choice(["j <= i", "i == j", "i > 0 and j > 0", "(i + j) % 2 == 0", "i != j"])
    inner = w.random.choice(["0", "0.5", f"{x.text}[i, j] * j / 20"])
    return w.let(f"[i, j] |-> if {test} then {x.text}[i, j] else {inner}", x.dtype, x.shape)


def ramp(w: Writer, x: Var) -> Var | None:
    if x.rank != 1 or not x.is_float:
        return None
    return w.let(f"[i] |-> sin({x.text}[i] * (i + 1))", x.dtype, x.shape)


INDEX_NOTATION: tuple[Step, ...] = (
    *(permuted, diagonal, shifted, window, window, reduction, contraction, contraction, gather),
    *(places, quantifier, group, masked, ramp),
)
