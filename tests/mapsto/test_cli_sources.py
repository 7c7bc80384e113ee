"""`mapsto check` and `mapsto fmt`."""

import io
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cli_harness import PROGRAM, WRONG, Workspace

from mapsto.cli import main
from mapsto.dsl.formatter import format_source

UNTIDY = "map  f( x:f32[n] )->f32[n]:\n      x+1   # one more\n"
TIDY = format_source(UNTIDY)


def test_check_accepts(workspace: Workspace) -> None:
    outcome = workspace.run("check", "program.mto")
    assert (outcome.code, outcome.out, outcome.err) == (0, "no errors in 1 file\n", "")


def test_check_reports_every_error_of_every_file(workspace: Workspace) -> None:
    workspace.write("wrong.mto", WRONG)
    workspace.write("syntax.mto", "map f(:\n    1\n")
    outcome = workspace.run("check", "wrong.mto", "program.mto", "syntax.mto", "missing.mto")
    assert outcome.code == 1
    assert "wrong.mto:2:5" in outcome.err
    assert "did you mean `relu`?" in outcome.err
    assert "syntax.mto:1:6" in outcome.err
    assert "cannot read `missing.mto`" in outcome.err
    assert outcome.err.rstrip().endswith("4 errors in 3 files")


@pytest.mark.parametrize("command", ["check", "fmt"])
def test_files_that_cannot_be_read(workspace: Workspace, command: str) -> None:
    workspace.folder.joinpath("latin.mto").write_bytes(b"# caf\xe9\n")
    workspace.fails(command, "latin.mto", says="byte 0xe9 is not UTF-8")
    workspace.fails(command, str(workspace.folder), says="Is a directory")
    workspace.fails(command, "nul\0name", says="null byte")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_check_without_permission(workspace: Workspace) -> None:
    workspace.write("secret.mto", PROGRAM).chmod(0)
    workspace.fails("check", "secret.mto", says="Permission denied")


def test_check_finds_imports_beside_the_file(workspace: Workspace) -> None:
    workspace.folder.joinpath("inner").mkdir()
    workspace.write("inner/part.mto", "map twice(x: f32[n]) -> f32[n]:\n    2 * x\n")
    text = 'from "part.mto" import twice\n\nmap f(x: f32[n]) -> f32[n]:\n    twice(x)\n'
    workspace.write("inner/whole.mto", text)
    assert workspace.run("check", "inner/whole.mto").code == 0


def test_fmt_rewrites_and_is_idempotent(workspace: Workspace) -> None:
    path = workspace.write("untidy.mto", UNTIDY)
    path.chmod(0o640)
    outcome = workspace.run("fmt", "untidy.mto")
    assert (outcome.code, outcome.out) == (0, "laid out untidy.mto\n")
    assert path.read_text() == TIDY != UNTIDY
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert workspace.run("fmt", "untidy.mto").out == ""
    assert sorted(p.name for p in workspace.folder.iterdir()) == ["program.mto", "untidy.mto"]


def test_fmt_check_changes_nothing(workspace: Workspace) -> None:
    path = workspace.write("untidy.mto", UNTIDY)
    outcome = workspace.run("fmt", "--check", "untidy.mto", "program.mto")
    assert outcome.code == 1
    assert outcome.out == "untidy.mto would be laid out anew\n"
    assert path.read_text() == UNTIDY
    assert workspace.run("fmt", "--check", "program.mto").code == 0


def test_fmt_leaves_files_with_errors_alone(workspace: Workspace) -> None:
    text = "map f(x: f32[n]  -> f32[n]:\n    x\n"
    path = workspace.write("broken.mto", text)
    untidy = workspace.write("untidy.mto", UNTIDY)
    workspace.fails("fmt", "broken.mto", "untidy.mto", says="broken.mto:1:")
    assert path.read_text() == text
    assert untidy.read_text() == TIDY


def test_fmt_follows_links(workspace: Workspace) -> None:
    target = workspace.write("untidy.mto", UNTIDY)
    link = workspace.folder / "link.mto"
    link.symlink_to(target)
    assert workspace.run("fmt", "link.mto").code == 0
    assert link.is_symlink()
    assert target.read_text() == TIDY


def test_standard_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mapsto"]
    done = subprocess.run(
        [*command, "fmt", "-"], input=UNTIDY, capture_output=True, text=True, check=True
    )
    assert done.stdout == TIDY
    done = subprocess.run(
        [*command, "check", "-"], input=WRONG, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "<stdin>:2:5" in done.stderr


def test_colours_on_a_terminal(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    workspace.write("wrong.mto", WRONG)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    workspace.run("check", "wrong.mto")
    assert "\x1b[" in terminal.getvalue()


def test_check_without_an_open_output(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.chdir(workspace.folder)
    assert main(["check", "program.mto"]) == 0


def test_seeds_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    for text, says in (
        ("99999999999999999999", "does not fit into 64 bits"),
        ("x", "whole number"),
    ):
        with pytest.raises(SystemExit):
            main(["train", "program.mto", "--data", "d.npz", "--seed", text])
        assert says in capsys.readouterr().err
