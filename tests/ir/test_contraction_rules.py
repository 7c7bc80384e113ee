"""The algebra of contractions: what is left after the pass, and that values stay."""

from __future__ import annotations

from rule_checks import F32, N, after, function, names, tensor

from mapsto import ir
from mapsto.ir.ops.contraction import Contract, access, contract, reduce_axes
from mapsto.ir.passes.contractions import RULES, Contractions
from mapsto.ir.passes.cse import EliminateCommonSubexpressions
from mapsto.ir.passes.index_conditions import INDEX_RULES
from mapsto.ir.product_order import first_pair
from mapsto.ir.rewriting import fired

PASS = Contractions()


def test_a_product_written_with_broadcasting_is_one_contraction() -> None:
    def body(b: ir.Builder, x: ir.Value, w: ir.Value) -> ir.Value:
        left = b.emit(ir.Broadcast, x, shape=(N, 5, 4), dims=(0, 1))
        right = b.emit(ir.Broadcast, w, shape=(N, 5, 4), dims=(1, 2))
        return reduce_axes(b, "sum", b.emit(ir.Mul, left, right), [1])

    module = after(function(body, tensor(N, 5), tensor(5, 4)), PASS)
    assert names(module) == ["contract"]
    assert all(map_.is_projection for map_ in module["f"].block.operations[0].attributes["maps"])


def test_transposes_are_read_through_the_maps() -> None:
    def body(b: ir.Builder, x: ir.Value, w: ir.Value) -> ir.Value:
        turned = b.emit(ir.Transpose, w, permutation=(1, 0))
        maps = [ir.projection([0, 2], 3), ir.projection([2, 1], 3)]
        y = contract(b, [x, turned], maps, (3, 4, 5), 2)
        return b.emit(ir.Transpose, y, permutation=(1, 0))

    assert names(after(function(body, tensor(3, 5), tensor(4, 5)), PASS)) == ["contract"]


def test_axes_of_size_1_are_no_part_of_a_contraction() -> None:
    """A depthwise convolution, written with groups of one channel; padding is read outside."""

    def body(b: ir.Builder, x: ir.Value, k: ir.Value) -> ir.Value:
        image = b.emit(ir.Reshape, x, shape=(2, 3, 1, 7))
        kernel = b.emit(ir.Reshape, k, shape=(3, 1, 1, 3))
        position = ir.AffineExpr((0, 0, 0, 1, 0, 1), -1)
        of_image = ir.AffineMap(6, (*(ir.axis(d, 6) for d in (0, 1, 4)), position))
        of_kernel = ir.projection([1, 2, 4, 5], 6)
        y = contract(b, [image, kernel], [of_image, of_kernel], (2, 3, 1, 7, 1, 3), 4)
        return b.emit(ir.Reshape, y, shape=(2, 3, 7))

    assert names(after(function(body, tensor(2, 3, 7), tensor(3, 1, 3)), PASS)) == ["contract"]


def test_a_read_outside_of_an_added_axis_stays() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        row = b.emit(ir.Reshape, x, shape=(1, 5))
        map_ = ir.AffineMap(2, (ir.axis(0, 2), ir.axis(1, 2)))
        return contract(b, [row], [map_], (3, 5), 2)

    assert names(after(function(body, tensor(5)), PASS)) == ["reshape", "contract"]


def test_slices_and_zero_pads_are_read_through_the_maps() -> None:
    def body(b: ir.Builder, x: ir.Value, k: ir.Value) -> ir.Value:
        part = b.emit(ir.Slice, x, starts=(1,), sizes=(6,), steps=(1,))
        padded = b.emit(ir.Pad, part, low=(2,), high=(2,))
        window = ir.AffineMap(2, (ir.axis(0, 2) + ir.axis(1, 2),))
        return contract(b, [padded, k], [window, ir.projection([1], 2)], (8, 3), 1)

    # A slice cuts off elements that a pad replaces by zeros: the two are not one affine read.
    assert names(after(function(body, tensor(9), tensor(3)), PASS)) == ["slice", "contract"]


def test_a_maximum_does_not_read_zeros_of_a_pad() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        padded = b.emit(ir.Pad, b.emit(ir.Neg, b.emit(ir.Abs, x)), low=(1,), high=(1,))
        return reduce_axes(b, "max", padded, [0])

    assert "pad" in names(after(function(body, tensor(6)), PASS))


def test_factors_leave_the_sum() -> None:
    def body(b: ir.Builder, x: ir.Value, s: ir.Value) -> ir.Value:
        repeated = b.emit(ir.Broadcast, s, shape=(3, 5), dims=(0,))
        return reduce_axes(b, "sum", b.emit(ir.Mul, x, repeated), [1])

    assert names(after(function(body, tensor(3, 5), tensor(3)), PASS)) == ["contract", "mul"]


def test_divisors_and_signs_leave_the_sum() -> None:
    def body(b: ir.Builder, x: ir.Value, s: ir.Value, y: ir.Value) -> ir.Value:
        repeated = b.emit(ir.Broadcast, s, shape=(3, 5), dims=(0,))
        quotient = b.emit(ir.Neg, b.emit(ir.Div, x, repeated))
        maps = [ir.projection([0, 1], 2), ir.projection([1], 2)]
        return contract(b, [quotient, y], maps, (3, 5), 1)

    module = after(function(body, tensor(3, 5), tensor(3), tensor(5)), PASS)
    assert names(module) == ["contract", "div", "neg"]


def test_a_divisor_stays_where_the_result_is_larger() -> None:
    def body(b: ir.Builder, x: ir.Value, s: ir.Value, y: ir.Value) -> ir.Value:
        quotient = b.emit(ir.Div, x, b.emit(ir.Broadcast, s, shape=(3, 5), dims=(0,)))
        maps = [ir.projection([0, 2], 3), ir.projection([2, 1], 3)]
        return contract(b, [quotient, y], maps, (3, 9, 5), 2)

    module = after(function(body, tensor(3, 5), tensor(3), tensor(5, 9)), PASS)
    assert names(module) == ["broadcast", "div", "contract"]


def test_a_divisor_of_the_summed_index_stays() -> None:
    def body(b: ir.Builder, x: ir.Value, s: ir.Value) -> ir.Value:
        quotient = b.emit(ir.Div, x, b.emit(ir.Broadcast, s, shape=(3, 5), dims=(1,)))
        return reduce_axes(b, "sum", quotient, [1])

    assert "div" in names(after(function(body, tensor(3, 5), tensor(5)), PASS))[:2]


def test_numbers_leave_the_sum() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        ones = b.constant(2.0, F32, (5,))
        return contract(b, [x, ones], [ir.identity_map(1)] * 2, (5,), 0)

    module = after(function(body, tensor(5)), PASS)
    assert sorted(names(module)) == ["constant", "contract", "mul"]


def test_a_sum_of_sums_is_one_sum() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        return reduce_axes(b, "sum", reduce_axes(b, "sum", x, [1]), [0])

    assert names(after(function(body, tensor(N, 4, 5)), PASS)) == ["contract"]


def test_order_is_kept_where_reassociation_is_not_allowed() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        inner = reduce_axes(b, "sum", x, [1])
        attributes = {"rank": 0, "extents": (4,), "maps": (ir.identity_map(1),)}
        return b.emit(Contract, inner, **attributes, reassociate=False)

    assert names(after(function(body, tensor(4, 5)), PASS)) == ["contract", "contract"]


def test_products_of_three_are_taken_in_pairs() -> None:
    def body(b: ir.Builder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
        maps = [ir.projection(p, 4) for p in ([0, 2], [2, 3], [3, 1])]
        return contract(b, [x, y, z], maps, (2, 3, 40, 5), 2)

    module = after(function(body, tensor(2, 40), tensor(40, 5), tensor(5, 3)), PASS)
    ops = module["f"].block.operations
    assert names(module) == ["contract", "contract"]
    assert ops[0].result.shape == (2, 5)


def test_a_bilinear_form_with_shared_indices() -> None:
    def body(b: ir.Builder, x: ir.Value, w: ir.Value, y: ir.Value) -> ir.Value:
        maps = [ir.projection(p, 4) for p in ([0, 2], [1, 2, 3], [0, 3])]
        return contract(b, [x, w, y], maps, (6, 2, 4, 3), 2)

    module = after(function(body, tensor(6, 4), tensor(2, 4, 3), tensor(6, 3)), PASS)
    assert max(len(op.operands) for op in module["f"].operations() if op.name == "contract") == 2


def test_a_bilinear_form_takes_no_product_of_its_vectors() -> None:
    def body(b: ir.Builder, x: ir.Value, w: ir.Value, y: ir.Value) -> ir.Value:
        maps = [ir.projection(p, 4) for p in ([0, 2], [1, 2, 3], [0, 3])]
        return contract(b, [x, w, y], maps, (32, 8, 20, 20), 2)

    module = after(function(body, tensor(32, 20), tensor(8, 20, 20), tensor(32, 20)), PASS)
    shapes = {op.result.shape for op in module["f"].operations() if op.name == "contract"}
    assert shapes == {(32, 8, 20), (32, 8)}


def test_the_order_of_a_product_costs_least_as_a_whole() -> None:
    # A chain of matrices 2 x 100, 100 x 3, 3 x 100, 100 x 2: the middle pair first is 100 x 100.
    chain = [frozenset(pair) for pair in ((0, 1), (1, 2), (2, 3), (3, 4))]
    sizes = {0: 2, 1: 100, 2: 3, 3: 100, 4: 2}
    assert first_pair(chain, frozenset({0, 4}), sizes) in ((0, 1), (2, 3))
    # More than can be tried in every order.
    longer = [frozenset((i, i + 1)) for i in range(9)]
    assert first_pair(longer, frozenset({0, 9}), {i: 10 - i for i in range(10)}) == (7, 8)


def test_windows_of_a_product_are_summed_with_it() -> None:
    def body(b: ir.Builder, w: ir.Value, u: ir.Value) -> ir.Value:
        maps = [ir.projection([2, 1], 3), ir.projection([2, 0], 3)]
        product = contract(b, [w, u], maps, (9, 3, 5), 2)
        place = (ir.axis(0, 2) + ir.axis(1, 2).scaled(-1)).shifted(1)
        return contract(b, [product], [ir.AffineMap(2, (place, ir.axis(1, 2)))], (9, 3), 1)

    assert names(after(function(body, tensor(5, 3), tensor(5, 9)), PASS)) == ["contract"]


def test_what_lies_between_products_has_the_axes_of_the_larger_operand_last() -> None:
    def body(b: ir.Builder, y: ir.Value, a: ir.Value, c: ir.Value) -> ir.Value:
        # sum[i, j](y[i, j, k] * a[i, p] * c[j, q]) at [p, q, k]
        maps = [ir.projection(p, 5) for p in ([3, 4, 2], [3, 0], [4, 1])]
        return contract(b, [y, a, c], maps, (3, 4, 9, 20, 7), 3)

    module = after(function(body, tensor(20, 7, 9), tensor(20, 3), tensor(7, 4)), PASS)
    assert module["f"].block.operations[0].result.shape in {(3, 7, 9), (4, 20, 9)}


def test_a_pair_of_two_products_is_multiplied_once() -> None:
    """As in the gradients of a product of many."""

    def body(b: ir.Builder, *operands: ir.Value) -> list[ir.Value]:
        maps = [ir.projection(p, 4) for p in ([0, 2], [2, 3], [3, 1])]
        a, w, c, d = operands
        turned = [maps[1], maps[0], maps[2]]
        first = contract(b, [a, w, c], maps, (2, 50, 9, 8), 2)
        return [first, contract(b, [w, a, d], turned, (2, 50, 9, 8), 2)]

    types = tensor(2, 9), tensor(9, 8), tensor(8, 50), tensor(8, 50)
    module = after(function(body, *types), PASS, EliminateCommonSubexpressions())
    assert names(module) == ["contract"] * 3


def test_a_product_without_a_sum_is_elementwise() -> None:
    def body(b: ir.Builder, x: ir.Value, y: ir.Value) -> ir.Value:
        maps = [ir.projection([0], 2), ir.projection([1], 2)]
        return contract(b, [x, y], maps, (3, 4), 2)

    assert sorted(names(after(function(body, tensor(3), tensor(4)), PASS))) == [
        "broadcast",
        "broadcast",
        "mul",
    ]


def test_an_access_that_permutes_is_a_transpose() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        return access(b, x, [ir.axis(1, 2), ir.axis(0, 2)], (4, 3))

    assert names(after(function(body, tensor(3, 4)), PASS)) == ["transpose"]


def test_an_access_outside_stays() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        return access(b, x, [ir.axis(0, 1).shifted(-1)], (5,))

    assert names(after(function(body, tensor(4)), PASS)) == ["contract"]


def test_reductions_over_one_element_vanish() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        return reduce_axes(b, "max", x, [1])

    # What is left reads element 0 of the axis that is gone.
    module = after(function(body, tensor(3, 1)), PASS)
    assert not any(isinstance(op, Contract) and op.reduced for op in module["f"].operations())


def test_equal_contractions_are_computed_once() -> None:
    def body(b: ir.Builder, x: ir.Value, w: ir.Value) -> list[ir.Value]:
        maps = [ir.projection([0, 2], 3), ir.projection([2, 1], 3)]
        turned = b.emit(
            ir.Transpose, b.emit(ir.Transpose, w, permutation=(1, 0)), permutation=(1, 0)
        )
        return [contract(b, [x, v], maps, (3, 4, 5), 2) for v in (w, turned)]

    module = function(body, tensor(3, 5), tensor(5, 4))
    assert names(after(module, PASS, EliminateCommonSubexpressions())) == ["contract"]


def test_a_sum_over_an_index_that_nothing_reads_is_a_multiple() -> None:
    def body(b: ir.Builder, x: ir.Value) -> list[ir.Value]:
        maps = [ir.projection([0], 2)]
        return [contract(b, [x], maps, (4, 6), 1, kind) for kind in ("sum", "max", "min")]

    module = after(function(body, tensor(4)), PASS)
    assert names(module) == ["constant", "mul"]


def test_an_index_of_unknown_size_stays() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        repeated = b.emit(
            ir.Broadcast,
            b.emit(ir.Slice, x, starts=(0,), sizes=(1,), steps=(1,)),
            shape=(1, N),
            dims=(0,),
        )
        return reduce_axes(b, "sum", repeated, [1])

    assert "contract" in names(after(function(body, tensor(N)), PASS))


def test_what_nothing_reads_along_is_a_broadcast() -> None:
    def body(b: ir.Builder, x: ir.Value, y: ir.Value, _: ir.Value) -> ir.Value:
        return contract(b, [x, y], [ir.projection([1], 2)] * 2, (N, 5), 1)

    module = after(function(body, tensor(5), tensor(5), tensor(N)), PASS)
    assert names(module) == ["contract", "broadcast"]
    assert module["f"].block.operations[0].result.shape == ()


def test_sums_in_another_order_are_the_same() -> None:
    def body(b: ir.Builder, x: ir.Value) -> list[ir.Value]:
        maps = [ir.projection([0, 1, 2], 3), ir.projection([0, 2, 1], 3)]
        shapes = [(3, 4, 5), (3, 5, 4)]
        return [contract(b, [x], [m], s, 1) for m, s in zip(maps, shapes, strict=True)]

    module = function(body, tensor(3, 4, 5))
    assert names(after(module, PASS, EliminateCommonSubexpressions())) == ["contract"]


def test_a_padded_window_reads_a_transpose_through_its_map() -> None:
    def body(b: ir.Builder, x: ir.Value, k: ir.Value) -> ir.Value:
        turned = b.emit(ir.Transpose, x, permutation=(1, 0))
        window = ir.AffineMap(3, (ir.axis(0, 3), (ir.axis(1, 3) + ir.axis(2, 3)).shifted(-1)))
        return contract(b, [turned, k], [window, ir.projection([2], 3)], (2, 6, 3), 2)

    assert names(after(function(body, tensor(6, 2), tensor(3)), PASS)) == ["contract"]


def test_a_padded_window_does_not_read_past_a_slice() -> None:
    def body(b: ir.Builder, x: ir.Value, k: ir.Value) -> ir.Value:
        part = b.emit(ir.Slice, x, starts=(0,), sizes=(4,), steps=(1,))
        window = ir.AffineMap(2, ((ir.axis(0, 2) + ir.axis(1, 2)).shifted(-1),))
        return contract(b, [part, k], [window, ir.projection([1], 2)], (4, 3), 1)

    assert names(after(function(body, tensor(6), tensor(3)), PASS)) == ["slice", "contract"]


def test_a_product_of_truth_values_is_a_conjunction() -> None:
    def body(b: ir.Builder, x: ir.Value, y: ir.Value) -> ir.Value:
        return contract(b, [x, y], [ir.identity_map(1)] * 2, (4,), 1)

    truth = tensor(4, dtype=ir.DType.BOOL)
    assert names(after(function(body, truth, truth), PASS)) == ["and"]


def test_the_order_of_a_sum_is_kept_as_unit_indices_go() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        maps = (ir.projection([0, 1], 2),)
        return b.emit(Contract, x, rank=0, extents=(5, 1), maps=maps, reassociate=False)

    (op,) = after(function(body, tensor(5, 1)), PASS)["f"].block.operations[:-1]
    assert op.attributes["reassociate"] is False


def test_every_rule_fires() -> None:
    """In the other tests of this file, taken together."""
    before = fired.copy()
    for name, test in list(globals().items()):
        if name.startswith("test_") and test is not test_every_rule_fires:
            test()
    rules = set(RULES) - set(INDEX_RULES)
    assert not [rule.name for rule in rules if fired[rule.name] == before[rule.name]]
