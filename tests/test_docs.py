"""The documentation site: the command-line reference is made from the options themselves, and its pages exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.scripts import load_script

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def page() -> str:
    text: str = load_script("docs/cli_reference.py").cli_page()
    return text


def test_the_reference_has_every_command_with_its_options(page: str) -> None:
    import typer

    from vidcls.cli.app import app

    sections = dict(re.findall(r"^## vidcls ([\w -]+)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(commands) <= set(sections)
    assert "bench decode" in sections
    for name, command in commands.items():
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                assert all(option in sections[name] for option in parameter.opts), (name, parameter.opts)


def test_tables_of_the_reference_are_whole(page: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) > 100
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}


def test_pages_of_the_site_exist() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = text[text.index("nav:") : text.index("exclude_docs:")]
    pages = re.findall(r"[\w/-]+\.md", nav)
    assert len(pages) > 8
    missing = [page for page in pages if not (ROOT / "docs" / page).is_file()]
    assert missing in ([], ["reference/cli.md"])  # written when the site is built
    linked = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in linked if not page.endswith(".notes.md")} <= set(pages)


def test_the_version_is_written_once() -> None:
    from vidcls import __version__

    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^dynamic = \["version"\]$', project, re.M)
    assert f'"{__version__}"' not in project


@pytest.mark.parametrize("page", ["README.md", "docs/predict.md", "docs/reference/python.md"])
def test_python_in_the_pages_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = (ROOT / "examples" / "pan-left.mp4").read_bytes()
    for name in ("clip.mp4", "other.mp4"):
        (tmp_path / name).write_bytes(example)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    assert blocks
    for block in blocks:
        names: dict[str, object] = {}
        exec(block, names)
        assert names["prediction"].label == "pan left"  # type: ignore[attr-defined]
