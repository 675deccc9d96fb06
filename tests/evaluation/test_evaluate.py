"""Evaluation: figures against torchmetrics, resumption, the report on disk, and the command's own path."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vidcls
from tests.training.moving import make_folder
from vidcls.errors import UsageError
from vidcls.evaluation.evaluate import evaluate, evaluation_setup
from vidcls.evaluation.metrics import Scored, calibration, make_report
from vidcls.evaluation.report import summary_lines, write_report
from vidcls.evaluation.samples import check_samples
from vidcls.score.multi_gpu import local_scorer
from vidcls.score.rows import Result
from vidcls.score.scorer import Scorer
from vidcls.training.data.listing import Sample, read_listing
from vidcls.training.trainer import train
from vidcls.video.reader import VideoReader
from vidcls.video.sources import Source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of three classes."""
    return make_folder(tmp_path_factory.mktemp("moving") / "set", 4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A checkpoint that `vidcls train` wrote after a moment's training."""
    from vidcls.training.recipe import Recipe

    plan = Recipe.model_validate(
        {
            "model": "vivit-fe-tiny",
            "data": str(folder),
            "config": {"embed_dim": 16, "depth": 1, "temporal_depth": 1, "num_heads": 2},
            "input": {"num_frames": 4, "stride": 1, "fps": None, "num_views": 2},
            "init": {"from": "none"},
            "schedule": {"epochs": 2},
            "batch_size": 4,
            "workers": 0,
        }
    )
    return train(plan, tmp_path_factory.mktemp("run") / "run", device="cpu", quiet=True).weights


QUIET = {"quiet": True}


def read_samples(source: str, labels: Sequence[str]) -> tuple[list[Sample], list[int]]:
    """The clips of a set, and the class id of each."""
    found = read_listing(source)
    return found.samples, [first for first, *_ in check_samples(found, labels)]


def scorer_of(weights: Path, device: str = "cpu", **load: Any) -> Scorer:
    load = {"weights": str(weights), "device": device, "engine": "eager", **load}
    return local_scorer(evaluation_setup(load, workers=1))


def random_results(classes: int = 7, clips: int = 400) -> tuple[list[Scored], torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes - 1, (clips,), generator=generator)  # the last class has no clip
    logits = torch.randn(clips, classes, generator=generator) * 2
    logits[torch.arange(clips), labels] += 1.5
    scores = logits.softmax(1).double()
    results = []
    for number, (row, label) in enumerate(zip(scores, labels, strict=True)):
        best = row.argsort(descending=True)[:5]
        top = tuple(int(i) for i in best)
        results.append(
            Scored(f"{number}.mp4", int(label), top, tuple(float(row[i]) for i in best), float(row[label]))
        )
    return results, scores, labels


def test_figures_agree_with_torchmetrics() -> None:
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
        multiclass_calibration_error,
        multiclass_confusion_matrix,
    )

    results, scores, labels = random_results()
    report = make_report(results, [f"class {i}" for i in range(7)])
    assert report.top1 == pytest.approx(float(multiclass_accuracy(scores, labels, 7, average="micro")))
    assert report.top5 == pytest.approx(
        float(multiclass_accuracy(scores, labels, 7, average="micro", top_k=5))
    )
    error = float(multiclass_calibration_error(scores, labels, 7, n_bins=15, norm="l1"))
    assert report.calibration_error == pytest.approx(error, abs=1e-6)
    np.testing.assert_array_equal(report.confusion, multiclass_confusion_matrix(scores, labels, 7).numpy())
    recalls = [c.recall for c in report.classes if c.recall is not None]
    assert len(recalls) == 6
    assert report.mean_class == pytest.approx(np.mean(recalls))
    assert report.loss == pytest.approx(float(-scores[torch.arange(400), labels].log().mean()))
    assert report.classes[6].recall is None


def test_means_agree_with_scikit_learn() -> None:
    from sklearn.metrics import precision_recall_fscore_support as reference

    results, _, labels = random_results()
    report = make_report(results, [f"class {i}" for i in range(7)])
    predicted = [scored.top[0] for scored in results]
    for kind, means in report.means().items():
        # The last class has no clip: its mistaken predictions lower the precision of no class with clips.
        precision, recall, f1, _ = reference(
            labels, predicted, labels=range(6), average=kind, zero_division=0
        )
        assert means == pytest.approx({"recall": recall, "precision": precision, "f1": f1})
    _, _, f1, support = reference(labels, predicted, labels=range(7), zero_division=0)
    assert [c.f1 for c in report.classes] == pytest.approx(list(f1))
    assert [c.clips for c in report.classes] == list(support)


def test_a_class_that_nothing_speaks_of_has_no_figures() -> None:
    report = make_report([Scored("a.mp4", 0, (1, 0), (0.8, 0.2), 0.2)], ["a", "b", "c"])
    assert [(c.recall, c.precision, c.f1) for c in report.classes] == [
        (0.0, None, 0.0),
        (None, 0.0, 0.0),
        (None, None, None),
    ]
    assert report.means()["macro"] == {"recall": 0.0, "precision": 0.0, "f1": 0.0}


@pytest.mark.parametrize("classes", [3, 5, 6])
def test_top5_says_nothing_about_five_classes(classes: int) -> None:
    results = [Scored(f"{i}.mp4", i, (i,), (0.9,), 0.9) for i in range(classes)]
    report = make_report(results, [f"class {i}" for i in range(classes)])
    assert (report.top5 is None) is (classes <= 5)
    assert ("top-5" in dict(summary_lines(report))) is (classes > 5)


def test_worst_clips_are_wrong_and_in_order() -> None:
    results, _, _ = random_results()
    report = make_report(results, [f"class {i}" for i in range(7)], worst=9)
    assert len(report.worst) == 9
    assert all(scored.top[0] != scored.label for scored in report.worst)
    wrong = sorted(scored.p_true for scored in results if scored.top[0] != scored.label)
    assert [scored.p_true for scored in report.worst] == wrong[:9]


def test_calibration_bins_hold_every_clip() -> None:
    confidence = np.array([0.0, 1 / 15, 0.07, 1.0, 0.999])
    _, bins = calibration(confidence, np.array([True, False, True, True, False]))
    assert [count for count, _, _ in bins] == [2, 1, *[0] * 11, 0, 2]


def test_evaluation_takes_the_path_of_predict(weights: Path, folder: Path) -> None:
    with vidcls.load(weights) as classifier:
        samples, ids = read_samples(str(folder), classifier.labels)
        report = evaluate(scorer_of(weights), samples, ids, reporter_options=QUIET)
        answers = [classifier.predict(sample.path).scores for sample in samples]
    assert report.clips == 12
    best = np.array([int(np.argmax(scores)) for scores in answers])
    assert report.top1 == pytest.approx((best == np.array(ids)).mean())
    p_true = np.array([scores[label] for scores, label in zip(answers, ids, strict=True)])
    assert report.loss == pytest.approx(-np.log(p_true).mean(), rel=1e-5)


class Watched:
    """A scorer that notes which clips it was given, and may be interrupted after some."""

    def __init__(self, scorer: Scorer, most: int | None = None) -> None:
        self.scorer, self.most = scorer, most
        self.seen: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scorer, name)

    def run(self, items: Iterable[Source]) -> Iterator[Result | None]:
        results = self.scorer.run(items)
        with contextlib.closing(results):  # type: ignore[type-var]
            for result in results:
                if result is not None:
                    self.seen.append(result.item.path)
                yield result
                if len(self.seen) == self.most:
                    raise KeyboardInterrupt


def test_evaluation_goes_on_where_it_was_broken_off(weights: Path, folder: Path, tmp_path: Path) -> None:
    first = Watched(scorer_of(weights), 5)
    samples, ids = read_samples(str(folder), first.labels())
    whole = evaluate(scorer_of(weights), samples, ids, reporter_options=QUIET)
    with pytest.raises(KeyboardInterrupt):
        evaluate(first, samples, ids, folder=tmp_path, reporter_options=QUIET)
    done = {json.loads(line)["path"] for line in (tmp_path / "scores.jsonl").read_text().splitlines()}
    assert set(first.seen) <= done
    assert 5 <= len(done) < 12
    with (tmp_path / "scores.jsonl").open("a") as file:
        file.write('{"path": "half a li')
    second = Watched(scorer_of(weights))
    report = evaluate(second, samples, ids, folder=tmp_path, reporter_options=QUIET)
    assert set(second.seen) == {sample.path for sample in samples} - done
    assert report.summary() == whole.summary()
    third = Watched(scorer_of(weights))
    assert evaluate(third, samples, ids, folder=tmp_path, reporter_options=QUIET).summary() == whole.summary()
    assert third.seen == []
    # Labels are not part of the rows: a corrected list needs no new scores.
    other = evaluate(
        scorer_of(weights), samples, [(i + 1) % 3 for i in ids], folder=tmp_path, reporter_options=QUIET
    )
    assert other.loss != whole.loss
    with pytest.raises(UsageError, match=r"different settings \(num_views was 2, is 1\)"):
        evaluate(scorer_of(weights, num_views=1), samples, ids, folder=tmp_path, reporter_options=QUIET)


def test_several_devices_and_clips_that_are_listed_twice(weights: Path, folder: Path, tmp_path: Path) -> None:
    samples, ids = read_samples(str(folder), ["down", "left", "right"])
    one = evaluate(scorer_of(weights), samples * 2, ids * 2, reporter_options=QUIET)
    two = evaluate(scorer_of(weights, "cpu,cpu"), samples * 2, ids * 2, reporter_options=QUIET)
    assert one.clips == two.clips == 24
    assert one.summary() == pytest.approx(two.summary(), rel=1e-5)


def test_clips_that_fail_are_counted_apart(weights: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set", 1)
    rows = [f"{path},{path.parent.name}" for path in sorted(folder.rglob("*.mp4"))]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows += ["broken.mp4,left", "missing.mp4,right"]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    scorer = scorer_of(weights)
    samples, ids = read_samples(str(tmp_path / "list.csv"), scorer.labels())
    report = evaluate(scorer, samples, ids, folder=tmp_path / "out", reporter_options=QUIET)
    assert (report.clips, report.failed) == (3, 2)
    assert {Path(scored.path).name for scored in report.failures} == {"broken.mp4", "missing.mp4"}
    again = Watched(scorer_of(weights))
    evaluate(again, samples, ids, folder=tmp_path / "out", reporter_options=QUIET)
    assert {Path(path).name for path in again.seen} == {"broken.mp4", "missing.mp4"}  # they are tried again


def test_labels_that_the_model_does_not_know_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("a.mp4,runing\nb.mp4,running\nc.mp4,swiming\n")
    with pytest.raises(UsageError) as error:
        read_samples(str(tmp_path / "list.csv"), ["running", "swimming"])
    text = str(error.value)
    assert "2 mistakes" in text
    assert "list.csv:1: label 'runing' (1 clips) is none of the 2 classes, did you mean 'running'?" in text
    assert "did you mean 'swimming'?" in text


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("classes.txt", "walk\njump\n", "label 0 is 'walk' in classes.txt, 'run' for the model"),
        ("classInd.txt", "1 Walk\n2 Jump\n", "label 0 is 'Walk' in classInd.txt, 'run' for the model"),
        ("label_map.txt", "jump\nrun\n", "label 1 is 'run' in label_map.txt, 'jump' for the model"),
        ("classes.txt", "Run\nJ-U-M-P\nswim\n", None),
        ("other.txt", "walk\n", None),
    ],
)
def test_names_are_compared_not_only_numbers(
    tmp_path: Path, file: str, text: str, problem: str | None
) -> None:
    """0 = walk against 0 = run is a mistake, not a bad score (issue 12, D21)."""
    (tmp_path / "list.csv").write_text("a.mp4,0\nb.mp4,1\n")
    (tmp_path / file).write_text(text)
    if problem is None:
        assert read_samples(str(tmp_path / "list.csv"), ["run", "jump"])[1] == [0, 1]
        return
    with pytest.raises(UsageError) as error:
        read_samples(str(tmp_path / "list.csv"), ["run", "jump"])
    assert problem in str(error.value)
    assert read_samples(str(tmp_path / "list.csv"), ["0", "1"])[1] == [0, 1]  # names that are numbers


def test_report_on_disk(weights: Path, folder: Path, tmp_path: Path) -> None:
    scorer = scorer_of(weights)
    with VideoReader() as reader:
        samples, ids = read_samples(str(folder), scorer.labels())
        report = evaluate(scorer, samples, [(i + 1) % 3 for i in ids], worst=3, reporter_options=QUIET)
        write_report(report, scorer.labels(), tmp_path / "report", {"model": "tiny", "data": "set"}, reader)
    out = tmp_path / "report"
    data = json.loads((out / "report.json").read_text())
    assert data["clips"] == 12
    assert data["confusion"] == report.confusion.tolist()
    assert data["top1"] == report.top1
    with (out / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["down", "left", "right"]
    with (out / "clips.csv").open() as file:
        clips = list(csv.DictReader(file))
    assert [clip["path"] for clip in clips] == [sample.path for sample in samples]
    right = [clip["true_label"] == clip["predicted_label"] for clip in clips]
    assert np.mean(right) == pytest.approx(report.top1)
    assert data["macro"] == pytest.approx(report.means()["macro"])
    assert (out / "confusion.png").stat().st_size > 1000
    assert (out / "calibration.png").stat().st_size > 1000
    sheets = sorted((out / "worst").glob("*.png"))
    assert len(sheets) == len(report.worst)
    picture = np.asarray(Image.open(sheets[0]))
    assert picture.shape == (2 * 160 + 34, 4 * 160, 3)
    assert (picture[34:].std((0, 1)) > 20).all()  # the frames are there, not a blank sheet
    page = (out / "report.md").read_text()
    assert sheets[0].name in page


def test_an_empty_outcome_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"no clip could be scored \(first: a.mp4: no such file"):
        make_report([Scored("a.mp4", 0, error="a.mp4: no such file")], ["x"])


def test_command(weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from vidcls.cli.app import app

    arguments: list[Any] = [
        "evaluate",
        "--model",
        weights,
        "--data",
        folder,
        "-o",
        tmp_path / "out",
        "--json",
    ]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["clips"] == 12
    assert (tmp_path / "out" / "report.json").is_file()
    assert '"several"' not in (page := (tmp_path / "out" / "report.html").read_text())
    assert page.count("data:image/jpeg;base64") > 12
