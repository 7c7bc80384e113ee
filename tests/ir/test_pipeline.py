"""Pipelines as text, their order, and passes from users' files."""

from dataclasses import dataclass

import pytest

from mapsto import ir
from mapsto.ir.core import Module
from mapsto.ir.errors import PassError, PluginError
from mapsto.ir.pass_runner import PassRunner
from mapsto.ir.passes.base import Pass, registered_passes
from mapsto.ir.passes.canonicalize import Canonicalize
from mapsto.ir.passes.dce import EliminateDeadCode
from mapsto.ir.passes.differentiate import Differentiate
from mapsto.ir.passes.inline import Inline
from mapsto.ir.pipeline import DEFAULT, ORDER, find_pass, order_violations, parse_pipeline
from mapsto.ir.plugins import load_installed_plugins, load_plugin


@dataclass(frozen=True)
class Options(Pass):
    """Has one option of each type."""

    name = "test-options"
    depth: int = 1
    scale: float = 0.5
    quick: bool = False
    label: str = ""

    def run(self, module: Module) -> Module:
        return module


def names(text):
    return [pass_.name for pass_ in parse_pipeline(text)]


def test_the_default_pipeline_keeps_the_order():
    assert order_violations(DEFAULT) == []


def test_order_violations_are_found():
    (violation,) = order_violations([Inline(), Differentiate()])
    assert (violation.before, violation.after) == ("differentiate", "inline")
    assert order_violations([Canonicalize()]) == []


def test_constraints_name_passes_and_have_reasons():
    for constraint in ORDER:
        assert {constraint.before, constraint.after} <= registered_passes().keys()
        assert constraint.reason


def test_default_expands():
    assert parse_pipeline("default") == DEFAULT
    assert parse_pipeline("dce, default ,dce") == (
        EliminateDeadCode(),
        *DEFAULT,
        EliminateDeadCode(),
    )
    assert parse_pipeline("") == ()


def test_minus_takes_out_every_run():
    assert "cse" not in names("default,-cse")
    assert names("default,-cse,cse")[-1] == "cse"
    assert names("default,-default") == []


def test_options():
    assert parse_pipeline("test-options") == (Options(),)
    (options,) = parse_pipeline("test-options{depth=3, scale=1e-2,quick=true,label=a b}")
    assert options == Options(3, 0.01, True, "a b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("canonicalise", "no pass is named `canonicalise`; did you mean `canonicalize`"),
        ("defualt", "did you mean `default`"),
        ("zzzzz", "no pass is named `zzzzz`$"),
        ("dce,-cse", "`-cse` takes out no pass before it; did you mean `dce`"),
        ("a b", "`a b` is no pass; write name"),
        ("dce{depth=1}", "no option `depth` of the pass `dce`, which has none"),
        ("test-options{deep=1}", "no option `deep` of .*; did you mean `depth`"),
        ("test-options{depth=x}", "is an integer, not `x`"),
        ("test-options{scale=x}", "is a number, not `x`"),
        ("test-options{quick=1}", "is true or false, not `1`"),
        ("test-options{depth=1", "is no pass"),
    ],
)
def test_wrong_pipelines(text, message):
    with pytest.raises(PassError, match=message):
        parse_pipeline(text)


def test_every_pass_has_a_description():
    for name, record in registered_passes().items():
        assert record.__doc__ and record.__doc__.strip(), name
        assert find_pass(name) is record


# ---- users' files

PLUGIN = '''
"""A rule of one's own."""
from mapsto import ir
from mapsto.ir.rewriting import Rewriter, rewrite


@rewrite
def exp_of_log(op: ir.Exp, rewriter: Rewriter) -> ir.Value | None:
    """exp(log(x)) = x"""
    inner = op.operands[0].defining_op
    return inner.operands[0] if isinstance(inner, ir.Log) else None
'''


def test_a_rule_in_a_users_file_is_a_pass(tmp_path):
    file = tmp_path / "my_rules.py"
    file.write_text(PLUGIN)
    assert load_plugin(file).__doc__ == "A rule of one's own."
    build = ir.Builder(ir.Block([ir.TensorType(ir.DType.F32, (3,))]))
    result = build.emit(ir.Exp, build.emit(ir.Log, *build.block.arguments))
    module = Module.of(ir.finish_function("f", build, [result]))
    runner = PassRunner(parse_pipeline("default,exp-of-log,dce"))
    assert len(runner.run(module)["f"].block.operations) == 1
    assert "exp-of-log" not in registered_passes()


def test_a_file_can_be_loaded_again(tmp_path):
    file = tmp_path / "again.py"
    file.write_text(PLUGIN)
    assert load_plugin(file) is not load_plugin(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = z\n", "wrong.py:2: NameError: name 'z' is not defined"),
        ("def f(:\n", "wrong.py:1: SyntaxError: "),
        ("import sys\n\nsys.exit(3)\n", "wrong.py:3: SystemExit: 3"),
        ("def f():\n    raise ValueError\nf()\n", "wrong.py:2: ValueError$"),
        ("import no_such_module\n", "wrong.py:1: ModuleNotFoundError: No module named"),
        ("x = '\0'\n", "wrong.py.*SyntaxError"),
    ],
)
def test_errors_in_a_users_file_are_located(tmp_path, text, message):
    file = tmp_path / "wrong.py"
    file.write_text(text)
    with pytest.raises(PluginError, match=message):
        load_plugin(file)


def test_a_missing_file(tmp_path):
    with pytest.raises(PluginError, match=r"nowhere.py: no such file"):
        load_plugin(tmp_path / "nowhere.py")
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(PluginError, match="not a Python file"):
        load_plugin(tmp_path / "text.txt")


def test_installed_plugins_are_imported(monkeypatch):
    import importlib.metadata as metadata

    good = metadata.EntryPoint("calendar", "calendar", "mapsto.ops")
    bad = metadata.EntryPoint("bad", "no_such_module", "mapsto.passes")
    found = {"mapsto.ops": [good]}
    monkeypatch.setattr(metadata, "entry_points", lambda group: found.get(group, []))
    assert load_installed_plugins() == ["calendar"]
    found["mapsto.passes"] = [bad]
    with pytest.raises(PluginError, match=r"entry point bad \(no_such_module\) of mapsto.passes"):
        load_installed_plugins()
