"""``vidcls train`` on the command line: what is refused before any work, and how it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("accelerate")

from tests.training.moving import make_folder
from vidcls.cli.app import app
from vidcls.training.data.augment import without_wrong_flips
from vidcls.training.logs import message
from vidcls.training.recipe import Augment


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("train") / "set", 2)


def train(out: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", "-o", str(out), *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--lr", "-1"], "--lr: must be greater than 0, not -1"),
        (["--lr", "0"], "--lr: must be greater than 0, not 0"),
        (["--layer-decay", "3"], "--layer-decay: must be less than or equal to 1, not 3"),
        (["--set", "foo=1"], "--set foo=1: unknown key"),
        (["--set", "ema=2"], "--set ema=2: must be less than 1, not 2"),
        (["--set", "schedule.kind=bad"], "--set schedule.kind=bad: must be 'cosine', "),
        (["--set", "optimizer=3"], "--set optimizer=3: must be a valid dictionary"),
        (["--probe", "--set", "epochs=3"], "--set epochs=3: unknown key"),
        (["--set", "foo"], "--set foo: is not KEY=VALUE; write, for example, schedule.epochs=3"),
        (["--lora", "2", "--freeze", "backbone"], "give lora or freeze, not both: lora freezes"),
        (["-c", "nofile.yaml"], "--config: nofile.yaml: no such recipe"),
    ],
)
def test_wrong_values_on_the_command_line_are_usage(tmp_path: Path, arguments: list[str], text: str) -> None:
    done = train(tmp_path / "run", "gone", *arguments)
    assert done.exit_code == 2, done.output
    assert text in done.stderr
    assert "1 problem" not in done.stderr


def test_what_a_recipe_file_holds_is_not_usage(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("optimizer: {lr: -1}\n")
    done = train(tmp_path / "run", "gone", "-c", tmp_path / "bad.yaml", "--lr", "1", "--set", "ema=2")
    assert (done.exit_code, "optimizer.lr" in done.stderr) == (3, True)


def test_a_resumed_run_checks_what_is_given_too(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: vivit-fe-tiny\n")
    done = train(tmp_path, "--resume", "--set", "save_every=0")
    assert done.exit_code == 2, done.output
    assert "--set save_every=0: must be greater than or equal to 1, not 0" in done.stderr


@pytest.mark.parametrize("check", [[], ["--check"]])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--best", "map"],
            "--best: there is no figure 'map' here; choose from top1, top5, mean_class, loss",
        ),
        (["--best", "loss", "--val", "none"], "--best: needs validations"),
        (["--patience", "2", "--val", "none"], "--patience: needs validations, and there are no clips to "),
    ],
)
def test_what_validations_cannot_do_is_refused_before_any_work(
    clips: Path, tmp_path: Path, arguments: list[str], check: list[str], text: str
) -> None:
    done = train(tmp_path / "run", clips, "-m", "vivit-fe-tiny", "--device", "cpu", *arguments, *check)
    assert done.exit_code == 2, done.output
    assert text in done.stderr
    assert "give --val LIST" in done.stderr or "choose from" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_finished_run_names_flags(clips: Path, tmp_path: Path) -> None:
    start = [clips, "-m", "vivit-fe-tiny", "--epochs", "1", "--device", "cpu", "--val", "none", "-q"]
    assert train(tmp_path / "run", *start).exit_code == 0
    done = train(tmp_path / "run", "--resume", "--device", "cpu")
    assert "train further with --resume and --epochs 2" in " ".join(done.stderr.split())


def test_notes_name_parameters_outside_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    note = without_wrong_flips(Augment(), ["pan left", "pan right"])[1]
    assert note is not None
    message(note)
    assert "give settings='augment.directions_matter=false'" in capsys.readouterr().err
