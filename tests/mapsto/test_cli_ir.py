"""`mapsto ir`, `mapsto passes` and `mapsto ops`."""

import numpy as np
import pytest
from cli_harness import Workspace
from llvmlite import binding

from mapsto import ir
from mapsto.ir.parser import parse_module
from mapsto.ir.printer import module_text

ENTRIES = (
    "scale",
    "split",
    "Linear",
    "Linear.hidden",
    "Fit",
    "Fit.step",
    "Fit.evaluate",
    "Fit.net",
)
SIZES = ("--static", "d=4")


def sizes_for(entry: str) -> tuple[str, ...]:
    return () if entry.startswith("Fit") and "net" not in entry else SIZES


@pytest.mark.parametrize("entry", ENTRIES)
def test_tensor_stage_is_a_module(workspace: Workspace, entry: str) -> None:
    outcome = workspace.run("ir", f"program.mto:{entry}", *sizes_for(entry))
    assert outcome.code == 0, outcome.err
    module = parse_module(outcome.out)
    assert module_text(module).strip() == outcome.out.strip()


def test_printed_module_computes_what_the_map_says(workspace: Workspace) -> None:
    text = workspace.run("ir", "program.mto:split").out
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    total, largest = ir.evaluate(parse_module(text), "split", [x])
    np.testing.assert_array_equal(total, x.sum(1))
    np.testing.assert_array_equal(largest, x.max(1))


@pytest.mark.parametrize("entry", ["scale", "Linear", "Fit.step", "Fit.evaluate"])
def test_later_stages(workspace: Workspace, entry: str) -> None:
    target = f"program.mto:{entry}"
    sizes = sizes_for(entry)
    kernels = workspace.run("ir", target, "--stage", "kernels", *sizes).out
    assert "kernel" in kernels
    assert parse_module(kernels)
    loops = workspace.run("ir", target, "--stage", "loops", *sizes).out
    assert loops.startswith("kernel ")
    llvm = workspace.run("ir", target, "--stage", "llvm", *sizes).out
    binding.parse_assembly(llvm).verify()
    assert "ret" in workspace.run("ir", target, "--stage", "asm", *sizes).out


def test_tree(workspace: Workspace) -> None:
    whole = workspace.run("ir", "program.mto", "--stage", "ast").out
    assert whole.startswith("Program")
    part = workspace.run("ir", "program.mto:Linear", "--stage", "ast").out
    assert part.startswith("ModuleDefinition name=Linear")
    workspace.fails("ir", "program.mto:Liner", "--stage", "ast", says="did you mean `Linear`?")


def test_sizes_are_symbols_unless_fixed(workspace: Workspace) -> None:
    assert "f32[n, d]" in workspace.run("ir", "program.mto:scale").out
    fixed = workspace.run("ir", "program.mto:scale", "--static", "n=8", "--static", "d=2").out
    assert "f32[8, 2]" in fixed


def test_static_gives_element_types_groups_arguments_and_configuration(
    workspace: Workspace,
) -> None:
    given = ["--static", "times=3", "--static", "T=f64", "--static", "s=2,5"]
    assert "%x: f64[2, 5]" in workspace.run("ir", "program.mto:repeat", *given).out
    text = workspace.run("ir", "program.mto:Linear", *SIZES, "--static", "units=7").out
    assert "f32[4, 7]" in text
    workspace.fails("ir", "program.mto:repeat", says="give --static times=")


def test_a_parameter_without_a_size_says_which_to_give(workspace: Workspace) -> None:
    workspace.fails("ir", "program.mto:Linear", says="needs a number for d: give --static d=64")


def test_printing_and_stopping_at_a_pass(workspace: Workspace) -> None:
    outcome = workspace.run("ir", "program.mto:scale", "--print-after", "cse")
    assert outcome.err.count("// after cse") == 2
    everything = workspace.run("ir", "program.mto:Fit", "--print-after", "all")
    assert "// after differentiate" in everything.err
    stopped = workspace.run("ir", "program.mto:Fit", "--stop-after", "differentiate")
    whole = workspace.run("ir", "program.mto:Fit")
    assert parse_module(stopped.out)
    assert stopped.out != whole.out
    workspace.fails("ir", "program.mto:scale", "--print-after", "csee", says="did you mean `cse`?")
    workspace.fails(
        "ir", "program.mto:scale", "--stop-after", "cse", "--stage", "asm", says="--stage tensor"
    )


def test_pipelines(workspace: Workspace) -> None:
    text = workspace.run("ir", "program.mto:Linear", *SIZES, "--passes", "inline").out
    assert parse_module(text)
    workspace.fails("ir", "program.mto:scale", "--passes", "defalt", says="did you mean `default`?")
    early = ("--passes", "dce", "--stage", "loops")
    workspace.fails("ir", "program.mto:Fit", *early, says="has to be expanded by a pass")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("program.mto", "name what to take, as in program.mto:scale"),
        ("program.mto:Liner", "defines no `Liner`; did you mean `Linear`?"),
        ("program.mto:Linear.hiden", "has no map `hiden`; did you mean `hidden`?"),
        ("program.mto:Fit.stp", "did you mean `step`?"),
        ("program.mto:scale.x", "is not a map, a module"),
        ("program.mto:pi", "is not a map, a module"),
        ("missing.mto:f", "cannot read `missing.mto`"),
        (".:f", "Is a directory"),
        ("program.mto:", "name what to take"),
    ],
)
def test_wrong_targets(workspace: Workspace, target: str, message: str) -> None:
    workspace.fails("ir", target, says=message)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("n", "write name=value"),
        ("n=0", "a size is a whole number from 1"),
        ("n=-3", "a size is a whole number from 1"),
        ("n=1.5", "a size is a whole number from 1"),
        ("n=x", "a size is a whole number from 1"),
        ("batch=4", "`scale` has nothing of this name; there are n, d, by"),
        ("n=99999999999999999999", "a size is a whole number from 1"),
    ],
)
def test_wrong_sizes(workspace: Workspace, setting: str, message: str) -> None:
    workspace.fails("ir", "program.mto:scale", "--static", setting, says=message)


def test_misspelled_sizes(workspace: Workspace) -> None:
    wrong = ("--static", "uints=4")
    workspace.fails("ir", "program.mto:Linear", *wrong, says="did you mean `units`?")


def test_programs_with_mistakes(workspace: Workspace) -> None:
    workspace.write("wrong.mto", "map f(x: f32[n]) -> f32[n]:\n    x @@ x\n")
    workspace.fails("ir", "wrong.mto:f", says="wrong.mto:2:")
    workspace.write("shapes.mto", "map f(x: f32[n], y: f32[m]) -> f32[n]:\n    x + y\n")
    workspace.fails("ir", "shapes.mto:f", says="shapes.mto:2:")


PLUGIN = """
from mapsto import ir
from mapsto.ir.rewriting import rewrite, Rewriter


@rewrite
def cli_test_doubling(op: ir.Mul, rewriter: Rewriter) -> ir.Value | None:
    "x * y = y * x"
    return None
"""


def test_plugins(workspace: Workspace) -> None:
    workspace.write("plugin.py", PLUGIN)
    outcome = workspace.run(
        "ir",
        "program.mto:scale",
        "--plugin",
        "plugin.py",
        "--passes",
        "default,cli-test-doubling",
    )
    assert outcome.code == 0, outcome.err
    assert "x * y = y * x" in workspace.run("passes", "--plugin", "plugin.py").out
    workspace.write("bad.py", "a = 1\nb = a / 0\n")
    workspace.fails("ir", "program.mto:scale", "--plugin", "bad.py", says="bad.py:2: ZeroDivision")
    workspace.fails("passes", "--plugin", "none.py", says="none.py: no such file")


def test_lists(workspace: Workspace) -> None:
    passes = workspace.run("passes").out
    assert passes.startswith("default = differentiate,inline,")
    assert all(name in passes for name in ("canonicalize", "contractions", "cse"))
    ops = workspace.run("ops").out.splitlines()
    assert any(line.split()[0] == "contract" and len(line.split()) > 3 for line in ops)
    assert len(ops) == len({line.split()[0] for line in ops}) > 40


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--cpu", "no-such-cpu"), "there is no CPU `no-such-cpu`"),
        (("--vector-bits", "77"), "no 77-bit vectors"),
        (("--threads", "0"), "--threads: expected a positive number"),
    ],
)
def test_wrong_machines(workspace: Workspace, option: tuple[str, str], message: str) -> None:
    workspace.fails("ir", "program.mto:scale", *option, says=message)


def test_narrow_machines(workspace: Workspace) -> None:
    target = ("ir", "program.mto:scale", "--stage", "asm")
    assert "%xmm" in workspace.run(*target, "--cpu", "x86-64-v2").out
    assert "%ymm" not in workspace.run(*target, "--vector-bits", "128").out
