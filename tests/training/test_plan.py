"""What a run says before its first step, and the clips it holds out where no validation set is given."""

from __future__ import annotations

import re
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vidcls.training.data.listing import parts_of, read_listing
from vidcls.training.data.sets import load_data
from vidcls.training.groups import source_of
from vidcls.training.prepare import Prepared
from vidcls.training.recipe import Recipe
from vidcls.training.setup import find_model
from vidcls.training.splitting import write_split
from vidcls.training.trainer import Trainer, train


def data_of(plan: Recipe, run: Path | None = None) -> Any:
    return load_data(plan, find_model(plan), run)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Two classes of ten sources with two clips each; nothing is decoded."""
    for label in ("jump", "run"):
        (tmp_path / "many" / label).mkdir(parents=True)
        for source in range(10):
            for part in range(2):
                (tmp_path / "many" / label / f"game{source}-clip{part}.mp4").write_bytes(b"x")
    return tmp_path / "many"


def test_a_fifth_of_each_class_is_held_out_and_no_source_is_on_both_sides(recipe: Any, many: Path) -> None:
    data = data_of(recipe(data=str(many), val=None))
    assert data.held_out
    assert Counter(ids for ids in data.val[1]) == {(0,): 4, (1,): 4}
    assert len(data.train[0]) == 32
    assert not {source_of(s.path) for s in data.train[0]} & {source_of(s.path) for s in data.val[0]}
    again = data_of(recipe(data=str(many), val=None))
    assert again.val == data.val
    assert data_of(recipe(data=str(many), val=None, seed=1)).val != data.val


def test_nothing_is_held_out_where_that_is_asked_for(recipe: Any, many: Path) -> None:
    data = data_of(recipe(data=str(many), val="none"))
    assert (len(data.train[0]), data.val, data.held_out) == (40, None, False)


def test_too_few_clips_are_all_learned_from(recipe: Any, tmp_path: Path) -> None:
    for label in ("jump", "run"):
        (tmp_path / "few" / label).mkdir(parents=True)
        (tmp_path / "few" / label / "1.mp4").write_bytes(b"x")
    data = data_of(recipe(data=str(tmp_path / "few"), val=None))
    assert data.val is None
    assert any("too few clips to hold some out" in note for note in data.notes)


@pytest.mark.parametrize("names", [("train", "val"), ("Training", "validation"), ("train", "test")])
def test_a_set_in_parts_needs_no_val(recipe: Any, many: Path, tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        shutil.copytree(many, tmp_path / "set" / name)
    data = data_of(recipe(data=str(tmp_path / "set"), val=None))
    assert (len(data.train[0]), len(data.val[0]), data.held_out) == (40, 40, False)
    assert any(f"validating on {tmp_path / 'set' / names[1]}" in note for note in data.notes)


def test_a_folder_of_two_lists_is_a_set(recipe: Any, many: Path, tmp_path: Path) -> None:
    write_split(str(many), tmp_path / "lists", 0.2)
    data = data_of(recipe(data=str(tmp_path / "lists"), val=None))
    assert (len(data.train[0]), len(data.val[0])) == (32, 8)


def test_classes_that_are_called_like_parts_stay_classes(many: Path) -> None:
    (many / "train").mkdir()
    (many / "train" / "1.mp4").write_bytes(b"x")
    assert parts_of(str(many)) == (str(many), None)


def test_numbers_that_are_names_stay_names_in_the_lists(recipe: Any, many: Path, tmp_path: Path) -> None:
    for number, label in enumerate(("jump", "run"), 1):
        (many / label).rename(many / str(number))
    found = write_split(str(many), tmp_path / "lists", 0.2)
    assert read_listing(found.train).named
    assert data_of(recipe(data=str(found.train), val=str(found.val))).classes == (("1", "2"),)


def test_the_best_epoch_is_chosen_on_clips_that_were_held_out(
    recipe: Any, folder: Path, tmp_path: Path
) -> None:
    plan = recipe(val=None)
    stop = threading.Event()
    stop.set()
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        Trainer(plan, out, device="cpu", quiet=True).run(stop)
    lists = [(out / name).read_text() for name in ("train.csv", "val.csv")]
    val = {sample.path for sample in read_listing(out / "val.csv").samples}
    assert len(val) == 3
    assert len(read_listing(out / "train.csv").samples) == 9
    # Clips that came since are learned from: what was held out stays so.
    more = tmp_path / "more"
    shutil.copytree(folder, more)
    data = data_of(recipe(val=None, seed=9), out)
    assert {sample.path for sample in data.val[0]} == val
    result = train(plan, out, resume=True, device="cpu", quiet=True)
    assert result.scores is not None
    assert lists == [(out / name).read_text() for name in ("train.csv", "val.csv")]


def test_the_plan_comes_before_the_first_step(
    recipe: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = recipe(val=None, batch_size=4, freeze=["backbone"], schedule={"epochs": 1})
    assert train(plan, tmp_path / "run", device="cpu").steps == 3  # nine clips: the last batch holds one
    said = capsys.readouterr().err
    before = said[: said.index("epoch 1/1")]
    for line in (
        r"clips +9 to train on, 3 to validate with \(held out: 25% of the clips, sources kept together\)",
        r"classes +3 \(training clips\): down 3, left 3, right 3",
        r"model +vivit-fe-tiny, [\d,]+ parameters, [\d,]+ of them frozen",
        r"steps +3 per epoch, batch size 4; 3 in 1 epoch",
        r"learning rate +0.001, adamw, cosine schedule",
        r"device +cpu, fp32",
        r"expected time +about \d+ (s|min|h)",
    ):
        assert re.search(line, before), line


def test_check_says_the_same_and_writes_nothing(recipe: Any, folder: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from vidcls.cli.app import app

    words = ["train", str(folder), "-o", str(tmp_path / "run"), "-m", "vivit-fe-tiny", "--init-from", "none"]
    done = CliRunner().invoke(app, [*words, "--check"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("id\ttrain\tval\tlabel\n0\t3\t1\tdown\n")
    assert "expected time" in done.stderr
    assert not (tmp_path / "run").exists()


def test_validating_on_nothing_is_said(recipe: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from vidcls.training import plan

    (clips, *_) = plan.lines(Prepared(recipe(), "cpu", quiet=True))
    assert clips.endswith(
        "none to validate with: figures are on training clips, the last epoch counts as best"
    )


def test_measuring_the_time_changes_nothing(recipe: Any, folder: Path, tmp_path: Path) -> None:
    """With the plan and without it, a run gives the same weights."""
    import torch
    from safetensors.torch import load_file

    changes: dict[str, Any] = {"config": {"dropout": 0.3, "drop_path_rate": 0.2}, "schedule": {"epochs": 1}}
    runs = [
        train(recipe(**changes), tmp_path / str(quiet), device="cpu", quiet=quiet) for quiet in (True, False)
    ]
    one, other = (load_file(run.weights) for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_interrupted_run_says_how_to_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from vidcls.cli.app import app
    from vidcls.training import trainer

    def stopped(recipe: Recipe, out: Path, **_: Any) -> None:
        out.mkdir()
        (out / "state.pt").write_bytes(b"x")
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train", stopped)
    out = tmp_path / "my run"
    words = ["train", str(folder), "-o", str(out), "-m", "vivit-fe-tiny", "--init-from", "none"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code != 0
    assert f"go on with `vidcls train -o '{out}' --resume`" in done.output


def test_the_help_names_the_recipes_defaults() -> None:
    from typer.testing import CliRunner

    from vidcls.cli.app import app

    text = " ".join(CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).output.split())
    plain = Recipe()
    for flag, value in (
        ("--epochs", plain.schedule.epochs),
        ("--lr", plain.optimizer.lr),
        ("--batch-size", plain.batch_size),
        ("--layer-decay", plain.optimizer.layer_decay),
        ("--seed", plain.seed),
        ("--precision", plain.precision),
    ):
        shown = value if isinstance(value, str) else f"{value:g}"
        assert re.search(rf"{flag} .{{0,240}}?\[default: {shown}\]", text), flag
