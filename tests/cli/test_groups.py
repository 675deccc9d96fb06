"""Options declared once: how dataclasses become options, and how the library's parameters become flags."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from vidcls.cli import guard
from vidcls.cli import options as o
from vidcls.cli.app import COMMANDS, app, functions
from vidcls.cli.groups import Choices, Flags, Options, arguments, expand, keywords
from vidcls.cli.view_options import ViewOptions, WholeVideoOptions
from vidcls.errors import InputError, UsageError, VidclsError

FRUITS = {"apple": 1, "pear": 2}


@dataclass(frozen=True)
class Basket(Options):
    fruit: Annotated[
        str, typer.Option("--kind", help="Which."), Choices("tests.cli.test_groups:FRUITS", also=("any",))
    ] = "any"
    num_pieces: Annotated[int | None, typer.Option("--pieces", "-p", min=1)] = None
    ripe: Annotated[bool, typer.Option("--ripe")] = False


def run(*given: str, env: dict[str, str] | None = None) -> tuple[Any, Any]:
    seen: list[Any] = []

    def buy(
        shop: Annotated[str, typer.Argument(metavar="SHOP")], basket: Basket, top: o.TopKOption = 5
    ) -> None:
        seen.append((shop, basket, top))
        if basket.num_pieces == 13:
            raise UsageError("num_pieces", "is unlucky", "use num_pieces=12, or fruit='pear' with ripe=True")

    one = typer.Typer()
    one.command()(guard(buy))
    return CliRunner().invoke(one, given, env=env), seen


def test_a_command_gets_its_dataclass() -> None:
    result, seen = run("corner", "--kind", "pear", "-p", "3", "--ripe", "-k", "2")
    assert result.exit_code == 0, result.output
    assert seen == [("corner", Basket("pear", 3, True), 2)]
    assert run("corner")[1] == [("corner", Basket(), 5)]


def test_every_option_reads_the_variable_of_its_flag() -> None:
    _, seen = run("corner", env={"VIDCLS_KIND": "apple", "VIDCLS_PIECES": "4", "VIDCLS_TOP_K": "7"})
    assert seen == [("corner", Basket("apple", 4), 7)]
    assert run("corner", "-p", "5", env={"VIDCLS_PIECES": "4"})[1][0][1].num_pieces == 5
    assert run("corner", env={"VIDCLS_KIND": "plum"})[0].exit_code == 2


def test_choices_are_those_of_the_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    result, seen = run("corner", "--kind", "pare")
    assert (result.exit_code, seen) == (2, [])
    assert "--kind" in result.stderr
    assert "did you mean 'pear'" in result.stderr
    assert "any, apple, pear" in result.stderr
    monkeypatch.setitem(FRUITS, "plum", 3)
    assert run("corner", "--kind", "plum")[0].exit_code == 0
    assert Choices("tests.cli.test_groups:FRUITS").complete("p") == ["pear", "plum"]


def test_parameters_that_the_library_names_become_flags() -> None:
    result, _ = run("corner", "-p", "13")
    assert result.exit_code == 2
    expected = "vidcls: --pieces: is unlucky; use --pieces 12, or --kind pear with --ripe\n"
    assert result.stderr == expected


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("num_pieces", "is not a video"), "num_pieces: is not a video"),  # a file's name
        (UsageError("a.txt", "my_num_pieces=3 is odd"), "a.txt: my_num_pieces=3 is odd"),
        (UsageError("fruit", "pieces=2"), "--kind: pieces=2"),
        (VidclsError("x", "pass fruit=A|B"), "x: pass --kind A|B"),
        (VidclsError("x", "is unripe", "wait with fruit=True:\n  y"), "x: is unripe; wait with --kind:\n  y"),
        (VidclsError("x", "write shop.fruit=A, or a/fruit=A.mp4"), "x: write shop.fruit=A, or a/fruit=A.mp4"),
    ],
)
def test_only_parameters_become_flags(error: VidclsError, text: str) -> None:
    assert Flags({"num_pieces": "--pieces", "fruit": "--kind"}, {}).translate(error) == text


def test_options_are_handed_on_to_another_command() -> None:
    assert arguments(Basket(), Basket("pear", 2, True)) == ["--kind", "pear", "--pieces", "2", "--ripe"]


def test_shared_options_are_parameters_of_load() -> None:
    from vidcls.inference.load import load

    accepted = set(inspect.signature(load).parameters)
    groups = (o.ModelOptions(), ViewOptions(), o.MachineOptions())
    assert set(keywords(*groups)) <= accepted
    assert set(keywords(WholeVideoOptions())) <= accepted
    for name, value in keywords(*groups).items():
        assert inspect.signature(load).parameters[name].default == value, name


def all_options() -> list[tuple[str, Any]]:
    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield from ((name, p) for p in command.params if p.param_type_name == "option")
        for word, child in getattr(command, "commands", {}).items():
            yield from below(f"{name} {word}", child)

    return list(below("vidcls", typer.main.get_command(app)))


def test_every_option_reads_its_environment_variable() -> None:
    for name, option in all_options():
        if option.opts[0] not in ("--version", "--help", "--install-completion", "--show-completion"):
            assert option.envvar == "VIDCLS_" + option.opts[0][2:].replace("-", "_").upper(), name


def test_switches_with_two_names_are_handed_on() -> None:
    assert arguments(o.InputOptions(), o.InputOptions(recursive=False)) == ["--no-recursive"]


@pytest.mark.parametrize(
    "words",
    [
        "predict none.mp4 -o there.csv",
        "merge part1.jsonl -o there.csv",
        "bench models -o there.csv",
        "bench models --plot there.csv",
        "bench decode none.mp4 -o there.csv",
        "bench predict none.mp4 -o there.csv",
        "bench score none.mp4 -o there.csv",
        "score none.mp4 -o there.csv",
        "export --format safetensors -o there.safetensors",
        "split clips -o full",
        "synthesize camera-motion full",
    ],
)
def test_no_command_replaces_a_file_unasked(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    for label in "ab":
        (tmp_path / "clips" / label).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "clips" / label / f"{number}.mp4").touch()
    kept = [Path("there.csv"), Path("there.safetensors"), Path("full/train.csv"), Path("full/labels.csv")]
    for path in kept:
        path.write_text("kept")
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 2, result.output
    assert "--overwrite" in result.stderr
    assert [path.read_text() for path in kept] == ["kept"] * len(kept)


def test_load_names_its_keywords_to_people_and_to_type_checkers() -> None:
    from vidcls.inference.load import load
    from vidcls.inference.settings import Settings, SettingsKeywords

    assert {field.name: field.type for field in fields(Settings)} == {
        name: hint.__forward_arg__ for name, hint in SettingsKeywords.__annotations__.items()
    }
    parameters = inspect.signature(load).parameters
    assert len(load.__code__.co_varnames[: load.__code__.co_argcount + load.__code__.co_kwonlyargcount]) <= 10
    described = f"{load.__doc__}{Settings.__doc__}"
    assert all(f"\n        {name}: " in described for name in parameters)
    with pytest.raises(TypeError, match="num_view"):
        load("camera-motion", num_view=1)  # type: ignore[call-arg]


def test_one_flag_means_one_parameter_everywhere() -> None:
    parameters: dict[str, str] = {}
    for command in chain.from_iterable(map(functions, COMMANDS)):
        for name, flag in expand(command)[1].names.items():
            if flag.startswith("--"):
                assert parameters.setdefault(flag, name) == name, f"{command.__name__} {flag}"


def test_commands_take_groups_instead_of_many_parameters() -> None:
    for command in chain.from_iterable(map(functions, COMMANDS)):
        assert len(inspect.signature(command).parameters) <= 13, command.__name__
    assert len(fields(o.ModelOptions)) + len(fields(ViewOptions)) + len(fields(o.MachineOptions)) > 12


@pytest.mark.parametrize("command", [["predict"], ["score"], ["evaluate"], ["train"], ["bench", "models"]])
def test_help_spells_the_choices_out(command: list[str]) -> None:
    from vidcls.engines import PRECISIONS

    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    text = " ".join(result.output.replace("│", " ").split())
    words = list(dict.fromkeys(("auto", *PRECISIONS)))
    known = {"train": ["fp32", "bf16", "fp16"], "bench": list(PRECISIONS)}.get(command[0], words)
    assert "|".join(known) in text or f"one of {', '.join(known)}" in text


def pages() -> list[tuple[str, ...]]:
    root: Any = typer.main.get_command(app)
    found = []
    for name, command in root.commands.items():
        found += [(name, other) for other in getattr(command, "commands", {})] or [(name,)]
    return found


@pytest.mark.parametrize("page", pages(), ids=" ".join)
def test_help_is_one_screen_with_two_examples_that_parse(page: tuple[str, ...]) -> None:
    env = {"COLUMNS": "80", "TERM": "dumb"}
    lines = CliRunner().invoke(app, [*page, "--help"], env=env).output.splitlines()
    assert max(map(len, lines)) <= 80
    common = next((n for n, line in enumerate(lines) if "Advanced" in line), len(lines))
    assert common <= 60
    command: Any = typer.main.get_command(app)
    for name in page:
        command = command.commands[name]
    examples = re.findall(rf"`vidcls ({' '.join(page)}.*?)`", command.help.partition("Examples:")[2])
    if page == ("bench", "models"):
        examples += re.findall(r"`vidcls (bench --.*?)`", command.help.partition("Examples:")[2])
    assert len(examples) == 2, command.help
    for example in examples:
        words = shlex.split(example)
        arguments = words[len(page) :] if words[: len(page)] == [*page] else words[1:]
        command.make_context(example, arguments).close()  # an option that is not there would exit


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_their_pages_say(name: str) -> None:
    page = typer.main.get_command(app).commands[name].help  # type: ignore[attr-defined]
    assert " ".join(page.partition("\n\n")[0].split()) == COMMANDS[name]


def test_help_of_a_command_two_ways() -> None:
    env = {"COLUMNS": "100", "TERM": "dumb"}
    for words in ([], ["predict"], ["bench"], ["bench", "decode"]):
        expected = CliRunner().invoke(app, [*words, "--help"], env=env)
        assert CliRunner().invoke(app, ["help", *words], env=env).output == expected.output
        assert "Usage" in expected.output


def test_version_two_ways() -> None:
    assert CliRunner().invoke(app, ["-V"]).output == CliRunner().invoke(app, ["--version"]).output
