"""The example of a user's rewrite and op does what its header says.

It runs in processes of its own: this one must not know of its op.
"""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PLUGIN = str(EXAMPLES / "custom_pass.py")


def run(*arguments: str) -> str:
    command = [sys.executable, "-P", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def tensor_ir(*options: str) -> str:
    target = f"{EXAMPLES / 'custom_pass.mto'}:bumps"
    return run("-m", "mapsto", "ir", target, "--plugin", PLUGIN, *options)


def test_native_code_agrees_and_wrong_passes_are_named() -> None:
    output = run(PLUGIN)
    errors = [float(number) for number in re.findall(r"(\S+) from the", output)]
    assert len(errors) == 2
    assert max(errors) < 1e-6
    for name in ("wrong-value", "wrong-type"):
        assert f"caught: the pass `{name}`" in output


def test_the_rule_changes_the_printed_ir() -> None:
    before = tensor_ir()
    after = tensor_ir("--passes", "default,product-of-exponentials,dce")
    assert before.count("= exp ") == 2
    assert after.count("= exp ") == 1
    assert after.count("= squash ") == before.count("= squash ") == 1
