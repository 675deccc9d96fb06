"""The shape of the code: layers point one way, nothing heavy is imported early."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vidcls

PACKAGE = Path(vidcls.__file__).parent

PAGE = PACKAGE.parent / "docs" / "architecture.md"


def floors() -> list[list[str]]:
    """Rooms by floor, lowest first, as the documentation draws them."""
    text = PAGE.read_text(encoding="utf-8")
    drawn = re.search(r"<!-- floors -->\n```\n(.*?)```", text, re.DOTALL)
    assert drawn, "docs/architecture.md: the block of floors is missing"
    return [line.split() for line in reversed(drawn[1].splitlines())]


# Each room may import those below it, and rooms of its own floor.
LAYERS = floors()
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# Imports and builds all of them.
EVERY_COMMAND = "from vidcls.cli.app import COMMANDS, build; all(map(build, COMMANDS))"


def module_files() -> dict[str, Path]:
    files = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imports_of(path: Path, known: set[str]) -> set[str]:
    """Modules of vidcls that a file imports anywhere, but for those only the type checker sees."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(inner for statement in node.body for inner in ast.walk(statement))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.split(".")[0] == "vidcls")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module and node.module.split(".")[0] == "vidcls":
                found.update(
                    full if (full := f"{node.module}.{alias.name}") in known else node.module
                    for alias in node.names
                )
    return found


def graph() -> dict[str, set[str]]:
    files = module_files()
    return {name: imports_of(path, set(files)) - {name, "vidcls"} for name, path in files.items()}


def test_no_import_cycle() -> None:
    edges = graph()
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' → '.join([*trail[trail.index(name) :], name])}"
        if name not in done:
            for other in sorted(edges.get(name, ())):
                visit(other, (*trail, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


def test_layers_point_down() -> None:
    wrong = []
    for name, others in graph().items():
        parts = name.split(".")
        if len(parts) < 2 or parts[1] == "__main__":
            continue
        assert parts[1] in RANK, f"{name}: docs/architecture.md does not say on which floor {parts[1]!r} is"
        wrong += [
            f"{name} imports {other}"
            for other in others
            if other.split(".")[1] in RANK and RANK[other.split(".")[1]] > RANK[parts[1]]
        ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import vidcls", "numpy torch pydantic yaml typer rich av decord"),
        ("import vidcls.cli.app", "vidcls.cli.options vidcls.cli.predict vidcls.config yaml rich"),
        (EVERY_COMMAND, "numpy torch pydantic av decord huggingface_hub transformers"),
        # What the help pages name
        (
            "import vidcls.engines, vidcls.output.formats, vidcls.video.decoders, vidcls.training.data.forms",
            "numpy torch pydantic yaml av decord pyarrow",
        ),
        ("import vidcls.config", "torch numpy av decord rich typer"),
        (
            f"import vidcls.engines.cache, vidcls.zoo.facts, vidcls.zoo.weights, vidcls.video.sources; {EVERY_COMMAND}",
            "urllib.request http.client ssl filelock",
        ),
        (
            "import vidcls.video.reader, vidcls.views.transform, vidcls.output.writers, vidcls.zoo.weights",
            "torch transformers",
        ),
        (
            "import vidcls.zoo.labels, vidcls.inference.classifier, vidcls.inference.load, vidcls.engines",
            "torch transformers",
        ),
    ],
)
def test_nothing_heavy_is_imported_early(statement: str, forbidden: str) -> None:
    code = f"{statement}\nimport sys\nprint(*[m for m in {forbidden.split()!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_every_architecture_is_where_the_table_says() -> None:
    from torch import nn

    from vidcls.models import ARCHITECTURES, CONFIGS

    assert list(ARCHITECTURES) == list(CONFIGS)
    for name, (config, model) in ARCHITECTURES.items():
        assert config is CONFIGS[name]
        assert issubclass(model, nn.Module)
        assert model.architecture == name


def test_the_page_names_files_that_exist() -> None:
    named = set(
        re.findall(r"`((?:vidcls|tests|docs)/[\w/.-]*|[A-Z]+\.md)`", PAGE.read_text(encoding="utf-8"))
    )
    assert len(named) > 15
    assert [name for name in sorted(named) if not (PACKAGE.parent / name).exists()] == []


def test_each_question_has_a_file_that_defines_the_name_to_look_for() -> None:
    rows = re.findall(
        r"^\| (.+) \| `(vidcls/[\w/]+\.py)` \| `(\w+)` \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert len(rows) >= 20
    for question, name, symbol in rows:
        tree = ast.parse((PACKAGE.parent / name).read_text(encoding="utf-8"))
        assigned = {
            t.id
            for n in tree.body
            for t in ast.walk(n)
            if isinstance(t, ast.Name) and isinstance(t.ctx, ast.Store)
        }
        defined = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        assert symbol in defined | assigned, f"{question}: {name} has no {symbol}"


def test_the_page_names_every_room() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert modules <= {"errors", "paths"}, "a loose module at the top of the package"
    assert rooms | modules == {name for floor in LAYERS for name in floor}


# Files that put whole commands together, to run or to propose them.
COMMAND_BUILDERS = {
    *("zoo/find.py", "engines/select.py", "engines/artifact.py", "bench/score.py", "training/trainer.py")
}


def test_the_library_speaks_of_parameters_and_not_of_flags() -> None:
    """Only ``cli/`` knows flags; a text of the library may name a whole command, between backticks."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith("cli/") or name in COMMAND_BUILDERS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                text = re.sub(r"`[^`]*`|`[^`]*$|pip install.*|\(Slurm: .*\)", "", node.value)
                if re.search(r"(?<![\w-])--[a-z]", text):
                    found.append(f"{name}:{node.lineno}: {node.value!r}")
    assert not found, "\n".join(found)
