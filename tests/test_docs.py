"""The documentation does what it says: every code block runs, every link leads somewhere."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GENERATOR = ROOT / "docs" / "make_library.py"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page: Path, kept_folder: Path) -> None:
    # A process of its own: a page may register passes and ops, and shows code for a fixed CPU.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAPSTO_")}
    environment["MAPSTO_CACHE"] = str(kept_folder)
    command = [sys.executable, "-P", str(ROOT / "tests" / "doc_pages.py"), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_to_files(page: Path) -> None:
    links = _LINK.findall(_CODE.sub("", page.read_text("utf-8")))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def readme_commands() -> list[str]:
    text = (ROOT / "README.md").read_text("utf-8")
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_two_commands_of_the_readme_do_the_set_up() -> None:
    first, second = readme_commands()[:2]
    for command in (first, second):
        assert command.count("\n") == 1, "a line each"
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    for part in ("mapsto train", "--save digits.safetensors", "mapsto build", "-o libdigits.so"):
        assert part in first
    assert second.rstrip().endswith(".venv/bin/pytest -n auto")


def test_the_check_of_changes_runs_the_second_command() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    extraction = re.search(r"\$\((awk .*)\)$", script, re.MULTILINE)
    assert extraction is not None
    done = subprocess.run(
        ["bash", "-c", extraction[1]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == readme_commands()[1].strip()


def packaging() -> dict[str, object]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found = settings["tool"]["setuptools"]
    assert isinstance(found, dict)
    return found


def test_every_folder_with_code_is_packaged() -> None:
    settings = packaging()
    roots = settings["package-dir"]
    assert isinstance(roots, dict)
    expected = set()
    for package, folder in roots.items():
        for file in (ROOT / folder).rglob("*.py"):
            inner = file.parent.relative_to(ROOT / folder).parts
            expected.add(".".join([package, *inner]))
    assert set(settings["packages"]) == expected  # type: ignore[call-overload]


def test_every_data_file_is_packaged() -> None:
    settings = packaging()
    roots, data = settings["package-dir"], settings["package-data"]
    assert isinstance(roots, dict) and isinstance(data, dict)
    for package, folder in roots.items():
        patterns = data.get(package, [])
        packaged = {file for pattern in patterns for file in (ROOT / folder).glob(pattern)}
        present = {
            file
            for file in (ROOT / folder).rglob("*")
            if file.is_file() and file.suffix not in (".py", ".pyc")
        }
        assert present <= packaged, "list it in [tool.setuptools.package-data]"


def test_the_list_of_the_library_is_current() -> None:
    # A process of its own: other tests register ops, which are functions of the language.
    script = (
        f"import runpy; page = runpy.run_path({str(GENERATOR)!r}); print(page['library_page']())"
    )
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text = (ROOT / "docs" / "library.md").read_text("utf-8")
    assert done.stdout.strip() == text.strip(), "run `python docs/make_library.py`"
