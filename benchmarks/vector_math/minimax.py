"""Minimax polynomials with coefficients that a floating-point format can hold.

The exchange algorithm of Remez finds the polynomial p of given degree that minimizes the largest
|weight(t) (p(t) - f(t))| on an interval.  Rounding all its coefficients at once would spoil it, so
they are rounded one at a time, the constant term first, and the rest is fitted again each time.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mpmath as mp

Function = Callable[[Any], Any]
_POINTS_PER_COEFFICIENT = 24
_ROUNDS = 12


class Fit(NamedTuple):
    """Coefficients, the constant term first, and the largest weighted error that they leave."""

    coefficients: list[float]
    error: float


class Problem(NamedTuple):
    """What to fit, sampled: points, values and weights of equal number."""

    points: list[Any]
    values: list[Any]
    weights: list[Any]

    def errors(self, coefficients: Sequence[Any]) -> list[Any]:
        """The weighted error at each point."""
        descending = list(coefficients)[::-1]
        return [
            weight * (mp.polyval(descending, point) - value)
            for point, value, weight in zip(*self, strict=True)
        ]

    def largest(self, coefficients: Sequence[Any]) -> Any:
        return max(map(abs, self.errors(coefficients)))


def fit(
    function: Function,
    weight: Function,
    interval: tuple[Any, Any],
    degree: int,
    precision: int = 24,
) -> Fit:
    """A polynomial whose coefficients have `precision` bits, near minimax on the interval."""
    points = _chebyshev(interval, _POINTS_PER_COEFFICIENT * (degree + 2))
    values = [function(point) for point in points]
    problem = Problem(points, values, [weight(point) for point in points])
    coefficients = _remez(problem, 0, [mp.mpf(0)] * (degree + 1))
    for fixed in range(degree + 1):
        with mp.workprec(precision):
            coefficients[fixed] = +coefficients[fixed]
        coefficients = _remez(problem, fixed + 1, coefficients)
    return Fit([float(c) for c in coefficients], float(problem.largest(coefficients)))


def _chebyshev(interval: tuple[Any, Any], count: int) -> list[Any]:
    low, high = map(mp.mpf, interval)
    middle, half = (low + high) / 2, (high - low) / 2
    return [middle - half * mp.cos(mp.pi * (i + mp.mpf(0.5)) / count) for i in range(count)]


def _remez(problem: Problem, fixed: int, start: list[Any]) -> list[Any]:
    """Improve the coefficients from number `fixed` on; never returns worse ones than `start`."""
    free = len(start) - fixed
    if free == 0:
        return start
    step = (len(problem.points) - 1) / free
    nodes = [round(i * step) for i in range(free + 1)]
    best, least = start, problem.largest(start)
    for _ in range(_ROUNDS):
        solution = start[:fixed] + _solve(problem, start[:fixed], nodes)
        errors = problem.errors(solution)
        largest = max(map(abs, errors))
        if largest < least:
            best, least = solution, largest
        following = _alternation(errors, free + 1)
        if following is None or following == nodes:
            break
        nodes = following
    return best


def _solve(problem: Problem, known: list[Any], nodes: list[int]) -> list[Any]:
    """The free coefficients for which the errors at the nodes are equal with alternating signs."""
    rows, right = mp.matrix(len(nodes), len(nodes)), mp.matrix(len(nodes), 1)
    for row, node in enumerate(nodes):
        point, value, weight = (column[node] for column in problem)
        for column in range(len(nodes) - 1):
            rows[row, column] = weight * point ** (len(known) + column)
        rows[row, len(nodes) - 1] = (-1) ** row
        right[row] = weight * (value - mp.polyval(known[::-1], point) if known else value)
    return list(mp.lu_solve(rows, right))[:-1]


def _alternation(errors: list[Any], count: int) -> list[int] | None:
    """The largest error of each run of one sign, `count` of them in a row; None if too few."""
    peaks: list[int] = []
    for index, error in enumerate(errors):
        if not peaks or (error >= 0) != (errors[peaks[-1]] >= 0):
            peaks.append(index)
        elif abs(error) > abs(errors[peaks[-1]]):
            peaks[-1] = index
    while len(peaks) > count:
        peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
    return peaks if len(peaks) == count else None
