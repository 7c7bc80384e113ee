"""The pass runner finds out and names what is wrong with a pass."""

from dataclasses import dataclass

import pytest

from mapsto import ir
from mapsto.ir.core import Block, Module, Value
from mapsto.ir.errors import MissingDerivative, PassError, VerifyError
from mapsto.ir.pass_runner import Observer, PassRunner, PassTimes, PrintAfter
from mapsto.ir.passes.base import BlockPass, Pass
from mapsto.ir.passes.canonicalize import Canonicalize
from mapsto.ir.passes.cse import EliminateCommonSubexpressions
from mapsto.ir.passes.dce import EliminateDeadCode
from mapsto.ir.passes.differentiate import Differentiate
from mapsto.ir.rewriting import Rewriter, rewrite, rewrite_module

TYPE = ir.TensorType(ir.DType.F32, (ir.symbol("n"), 4))


def module_of(body, *types, attributes=None) -> Module:
    build = ir.Builder(ir.Block(types or [TYPE], ["x"]))
    result = body(build, *build.block.arguments)
    return Module.of(ir.finish_function("f", build, [result], attributes))


def exp_of_sum(build, x):
    return build.emit(ir.Exp, build.emit(ir.Add, x, x))


def gradient_of(callee):
    build = ir.Builder(Block([TYPE, TYPE]))
    op = build.op(
        ir.Vjp,
        *build.block.arguments,
        callee=ir.SymbolReference(callee.name),
        results=(TYPE, TYPE),
        wrt=(0,),
        outputs=(0,),
    )
    return ir.finish_function("df", build, op.results)


@dataclass(frozen=True)
class Broken(Pass):
    """Misbehaves as told."""

    kind: str = "raises"

    def run(self, module):
        function = module["f"]
        block, x = function.block, function.arguments[0]
        if self.kind == "raises":
            raise KeyError("oops")
        if self.kind == "no module":
            return None
        if self.kind == "no return":
            broken = block.with_operations(block.operations[:-1])
        elif self.kind == "order":
            broken = block.with_operations([*block.operations[-2::-1], block.terminator])
        elif self.kind == "nonsense":
            broken = block.with_operations(["return"])
        else:
            broken = block.with_operations([ir.Return([x])])
        return module.with_function(function.with_block(broken))


Broken.name = "broken"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("raises", "the pass `broken` failed: KeyError: 'oops'"),
        ("no module", "the pass `broken` gave no module but an object of type NoneType"),
        ("no return", "the pass `broken` gave an ill-formed module: @f: a block ends in `return`"),
        ("order", "the pass `broken` gave an ill-formed module: `exp` in @f: operand 0"),
        ("nonsense", "the pass `broken` gave"),
        ("values", r"the pass `broken` changes values: @f, n = 3, seed 0: result 0"),
    ],
)
def test_a_broken_pass_is_named(kind, message):
    runner = PassRunner([EliminateDeadCode(), Broken(kind)], check_values=True)
    with pytest.raises(PassError, match=message):
        runner.run(module_of(exp_of_sum))


def test_a_rewrite_that_breaks_types_is_named():
    @rewrite
    def widen_exp(op: ir.Exp, rewriter: Rewriter) -> Value | None:
        """Wrong: a cast changes the type."""
        return rewriter.emit(ir.Cast, op.result, dtype=ir.DType.F64)

    runner = PassRunner([widen_exp.as_pass()()])
    with pytest.raises(
        PassError, match=r"`widen-exp` failed: the rewrite `widen_exp` replaces exp"
    ):
        runner.run(module_of(exp_of_sum))


def test_a_rewrite_that_changes_values_is_named():
    @rewrite
    def forget_exp(op: ir.Exp, rewriter: Rewriter) -> Value | None:
        """Wrong: exp(x) is not x."""
        return op.operands[0]

    runner = PassRunner([forget_exp.as_pass()()], check_values=True)
    with pytest.raises(PassError, match="the pass `forget-exp` changes values"):
        runner.run(module_of(exp_of_sum))


def test_ops_that_stay_are_offered_once():
    offered = []

    @rewrite
    def look_at_log(op: ir.Log, rewriter: Rewriter) -> Value | None:
        "log(x), as it is."
        offered.append(op)
        return None

    @rewrite
    def square_of_sum(op: ir.Add, rewriter: Rewriter) -> Value | None:
        "x + x is not x * x."
        return rewriter.emit(ir.Mul, *op.operands)

    def log_then_sum(build, x):
        log = build.emit(ir.Log, x)
        return build.emit(ir.Add, log, log)

    rewrite_module(module_of(log_then_sum), [look_at_log, square_of_sum])
    assert len(offered) == 1


def test_a_rewrite_without_end_is_named():
    @rewrite
    def swap_sum(op: ir.Add, rewriter: Rewriter) -> Value | None:
        """x + y = y + x, again and again"""
        return rewriter.emit(ir.Add, *op.operands[::-1])

    with pytest.raises(PassError, match="`swap-sum` failed: rewriting does not come to an end"):
        PassRunner([swap_sum.as_pass()()]).run(module_of(exp_of_sum))


def test_an_exception_after_the_pass_counts_as_a_change_of_values():
    def gather_rows(build, x):
        rows = build.constant(1, ir.DType.I32, (2,))
        return build.emit(ir.Gather, x, rows, axes=(0,))

    @rewrite
    def gather_beyond(op: ir.Gather, rewriter: Rewriter) -> Value | None:
        """Wrong: another row, which there is not."""
        rows = rewriter.build.constant(99, ir.DType.I32, (2,))
        if op.indices[0].defining_op.splat == 99:
            return None
        return rewriter.emit(ir.Gather, op.operands[0], rows, axes=(0,))

    runner = PassRunner([gather_beyond.as_pass()()], check_values=True)
    with pytest.raises(PassError, match=r"`gather-beyond` changes values: .* IndexError"):
        runner.run(module_of(gather_rows))


def test_an_ill_formed_program_is_not_blamed_on_a_pass():
    module = Module({"g": module_of(exp_of_sum)["f"]})
    with pytest.raises(VerifyError):
        PassRunner([EliminateDeadCode()]).run(module)


def test_a_missing_derivative_is_the_programs_error():
    class Opaque(ir.Operation):
        name = "test.no_derivative"
        arity = 1

        def infer(self):
            return (self.operands[0].type,)

    callee = module_of(lambda build, x: build.emit(Opaque, x))["f"]
    with pytest.raises(MissingDerivative, match="no_derivative"):
        PassRunner([Differentiate()]).run(Module.of(callee, gradient_of(callee)))


def test_passes_run_in_order_and_are_timed():
    times = PassTimes()
    passes = [Canonicalize(), EliminateCommonSubexpressions(), EliminateDeadCode()]
    PassRunner(passes, observer=times).run(module_of(exp_of_sum))
    assert [name for name, _ in times.times] == ["canonicalize", "cse", "dce"]
    assert all(seconds >= 0 for _, seconds in times.times)


def test_stop_after_ends_behind_the_first_run():
    times = PassTimes()
    passes = [EliminateDeadCode(), Canonicalize(), EliminateDeadCode()]
    PassRunner(passes, observer=times, stop_after="canonicalize").run(module_of(exp_of_sum))
    assert [name for name, _ in times.times] == ["dce", "canonicalize"]


@pytest.mark.parametrize(("name", "count"), [("all", 3), ("dce", 2), ("canonicalize", 1)])
def test_print_after(name, count):
    printed = []
    observer = PrintAfter(name, lambda module: "TEXT", printed.append)
    passes = [EliminateDeadCode(), Canonicalize(), EliminateDeadCode()]
    PassRunner(passes, observer=observer).run(module_of(exp_of_sum))
    assert len(printed) == count
    assert all(text.startswith("// after ") and text.endswith("TEXT") for text in printed)


def test_functions_that_cannot_be_evaluated_yet_are_left_out_of_the_comparison():
    square = module_of(lambda build, x: build.emit(ir.Mul, x, x))["f"]
    result = PassRunner([Differentiate()], check_values=True).run(
        Module.of(square, gradient_of(square))
    )
    assert not any(isinstance(op, ir.Vjp) for op in result["df"].operations())


def test_observer_sees_the_module():
    class Keep(Observer):
        def after(self, pass_, module, seconds):
            self.module = module

    keep = Keep()
    assert PassRunner([Canonicalize()], observer=keep).run(module_of(exp_of_sum)) is keep.module


def test_block_passes_see_one_block_at_a_time():
    @dataclass(frozen=True)
    class Same(BlockPass):
        def run_on_block(self, block):
            return block

    module = module_of(exp_of_sum)
    assert PassRunner([Same()]).run(module)["f"].block is module["f"].block
