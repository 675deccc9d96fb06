"""Defaults from ``config.toml`` and ``./vidcls.toml``: which wins, what is refused, what is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from vidcls.cli import app as app_module
from vidcls.cli.app import app
from vidcls.cli.config_file import LOCAL, NEVER, read_settings
from vidcls.errors import ConfigError, VidclsError
from vidcls.paths import user_config_dir


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A current folder and a user's configuration folder, both new."""
    for name in ("XDG_CONFIG_HOME", "APPDATA", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    user_config_dir().mkdir(parents=True)
    return tmp_path


def write(user: str | None = None, local: str | None = None) -> None:
    for path, text in ((user_config_dir() / "config.toml", user), (Path("vidcls.toml"), local)):
        if text is not None:
            path.write_text(text, encoding="utf-8")


def models(*arguments: str, **env: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["models", *arguments], env=env)


def test_which_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def measured(clip: str, arguments: list[str], notify: Any) -> list[dict[str, Any]]:
        seen["arguments"] = arguments
        raise VidclsError("stop", "here")

    monkeypatch.setattr("vidcls.bench.predict.time_command", measured)

    def stride(*arguments: str, **env: str) -> str | None:
        seen.clear()
        result = CliRunner().invoke(app, ["bench", "predict", "a.mp4", *arguments], env=env)
        assert "stop: here" in result.stderr, result.stderr
        given = seen["arguments"]
        return given[given.index("--stride") + 1] if "--stride" in given else None

    assert stride() is None
    write(user="[bench.predict]\nstride = 3\n")
    assert stride() == "3"
    write(local="[bench.predict]\nstride = 4\n")
    assert stride() == "4"
    assert stride(VIDCLS_STRIDE="5") == "5"
    assert stride("--stride", "6", VIDCLS_STRIDE="5") == "6"


def test_that_the_folder_s_file_is_used_is_said_once() -> None:
    write(user="[models]\nhas-weights = true\n", local="[models]\njson = true\n[predict]\ntop-k = 2\n")
    result = models("camera-motion")
    assert result.stdout.startswith("{")
    assert result.stderr == "vidcls: defaults from ./vidcls.toml: --json\n"
    assert models("camera-motion").stderr.count("vidcls.toml") == 1
    write(local="[predict]\ntop-k = 2\n")
    assert models("camera-motion").stderr == ""
    write(local="[predict]\ntop_k = 2\n")
    quiet = CliRunner().invoke(app, ["predict", "-q", "none.mp4"])
    assert "vidcls.toml" not in quiet.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[models]\njsn = true\n", "[models] jsn: no such option, did you mean 'json'?; see `vidcls models --help`"),
        ("[modls]\njson = true\n", "[modls]: no such command, did you mean 'models'?"),
        ("json = true\n", "json is not in a table; put it below [predict]"),
        ("models = true\n", "models is a command, not an option; write a table: [models]"),
        ("[bench]\nseconds = 5\n", "bench.seconds is not in a table; put it below [bench]"),
        ("[models]\njson = 1\n", "[models] json: takes true or false"),
        ("[predict]\ntop-k = true\n", "[predict] top-k: is not a switch"),
        ("[predict]\ntop-k = 0\n", "[predict] top-k: "),
        ("[predict]\ntop-k = 'many'\n", "[predict] top-k: "),
        ("[predict]\nstride = [2]\n", "[predict] stride: "),
        ("[predict]\nengine = 'openvin'\n", "[predict] engine: unknown choice 'openvin', did you mean 'openvino'?"),
        ("[predict]\noutput = 'a.csv'\n", "[predict] output: cannot be set in a file; give it on the command line"),
        ("[export]\noverwrite = true\n", "[export] overwrite: cannot be set in a file; give it on the command line"),
        ("[models\n", "is not valid TOML"),
        ("a = " + "[" * 10_000, "is not valid TOML"),
        ("#" * 70_000, "is larger than 64 KiB"),
    ],
)  # fmt: skip
def test_errors_name_the_file_and_the_key(text: str, message: str) -> None:
    write(user=text)
    result = models("camera-motion")
    assert result.exit_code == 3
    assert result.stderr.startswith(f"vidcls: {user_config_dir() / 'config.toml'}: {message}"), result.stderr
    assert result.stdout == ""
    assert models("--help").exit_code == 0  # whoever is lost gets help


@pytest.mark.parametrize(
    "text",
    [
        "[predict]\nweights = 'https://example.org/x.pth'\n",
        "[predict]\nregistry = 'models.yaml'\n",
        "[predict]\nlabels = '/etc/passwd'\n",
        "[predict]\nfeatures = '/tmp/x'\n",
        "[score]\noutput = '../x.csv'\n",
        "[score]\nretry-failed = true\n",
        "[score]\nray-address = 'evil:6379'\n",
        "[predict]\nquiet = true\n",
        "[predict]\nmodel = 'hub:evil/model'\n",
        "[predict]\nmodel = './camera-motion'\n",
        "[train]\nresume = true\n",
        "[models]\nregistry = 'x.yaml'\n",
    ],
)
def test_a_stranger_s_folder_can_do_no_harm(text: str) -> None:
    write(local=text)
    result = models("camera-motion")
    assert result.exit_code == 3
    assert "vidcls.toml: [" in result.stderr
    assert "give it on the command line" in result.stderr
    key = text.split("\n")[1].split(" ")[0]
    if key not in NEVER and key != "registry":
        write(local="", user=text)
        assert models("camera-motion").exit_code == 0  # one's own file may


def test_the_folder_s_file_names_parameters_that_exist() -> None:
    root: Any = typer.main.get_command(app)
    commands = [*root.commands.values(), *root.commands["bench"].commands.values()]
    known = {p.name: p for command in commands for p in command.params if p.param_type_name == "option"}
    assert set(known) >= LOCAL | NEVER
    paths = {name for name, p in known.items() if "Path" in str(p.type_descriptor.annotation)}
    assert paths
    assert not paths & LOCAL


def test_a_model_of_the_registry_may_be_chosen() -> None:
    write(local="[predict]\nmodel = 'camera-motion'\n")
    assert models("camera-motion").exit_code == 0
    (setting,) = read_settings(typer.main.get_command(app))
    assert (setting.command, setting.name, str(setting)) == (("predict",), "model", "--model camera-motion")


def test_control_characters_are_shown_as_escapes() -> None:
    write(local='[predict]\n"\\u001b[2J" = 1\n')
    with pytest.raises(ConfigError, match=r"\\x1b"):
        read_settings(typer.main.get_command(app))


def test_the_doctor_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from vidcls.cli.doctor import _configuration
    from vidcls.doctor.report import _configured

    root = typer.main.get_command(app_module.app)
    write(user="[predict]\ntop-k = 2\n[bench.models]\nseconds = 5\n", local="[predict]\nno = 1\n")
    mine, local = (_configured(*one) for one in _configuration(root))
    assert (mine.name, mine.status) == (str(user_config_dir() / "config.toml"), "ok")
    assert mine.value == "predict --top-k 2, bench models --seconds 5"
    assert (local.name, local.status, local.required) == ("vidcls.toml", "broken", True)
    assert "no such option" in local.value


def test_without_a_file_no_toml_is_read() -> None:
    code = (
        "import sys\nfrom vidcls.cli.app import app\n"
        "try:\n    app(['models', 'camera-motion'], prog_name='vidcls')\nexcept SystemExit: pass\n"
        "print([name for name in ('tomllib', 'tomli', 'tomli_w') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_how_clips_are_looked_at_may_be_set_for_every_command() -> None:
    write(
        local="[timeline]\nby = 'windows'\nstep = '1s'\nmin-length = '2s'\nthreshold = 0.4\n"
        "[explain]\nmethod = 'occlusion'\ncells = '2x2x2'\n[embed]\nlayer = 'mean'\nper = 'view'\n"
        "[watch]\nevery = 2\nhold = 3\n"
    )
    found = {setting.name for setting in read_settings(typer.main.get_command(app))}
    assert found >= {
        "by",
        "step",
        "min_length",
        "threshold",
        "method",
        "cells",
        "layer",
        "per",
        "every",
        "hold",
    }
