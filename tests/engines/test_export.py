"""Exported models: the same logits in every format, self-describing, whole or not there, and no trust in strangers."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaging.version import Version

from tests.engines.test_engines import make_clip, make_model, windows
from tests.models.test_all_architectures import FRAMES, SIZE, every_architecture, tiny
from vidcls.config import InputSpec, ModelSpec
from vidcls.engines import ENGINES, make_engine
from vidcls.engines.artifact import CARD, FORMATS, RECORD, read_artifact
from vidcls.errors import CheckpointError, ConfigError, DeviceError, OutputError, UsageError
from vidcls.inference.export import ExportRequest, export_model
from vidcls.inference.load import load
from vidcls.inference.shared_units import cut_clip
from vidcls.views.transform import pixel_scale_shift
from vidcls.zoo.find import Found, facts_of

HAS_ONNX = all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))) and Version(
    torch.__version__
) >= Version("2.6")
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="ONNX, or a PyTorch that exports it, is not installed")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
formats = pytest.mark.parametrize(
    "format",
    [pytest.param("openvino", marks=needs_openvino), pytest.param("onnx", marks=needs_onnx), "pt2"],
)
VIEW = InputSpec(num_frames=FRAMES, image_size=SIZE, resize=18, num_views=2)


def found_of(module: Any, view: InputSpec = VIEW, **changes: Any) -> Found:
    spec = ModelSpec(name="toy", architecture=module.architecture, input=view, license="MIT", **changes)
    facts = facts_of(spec, module)
    labels = tuple(f"label {i}" for i in range(facts.num_classes))
    return Found(facts.model_copy(update={"labels": labels}), "toy.safetensors", module=module)


def toy(name: str = "vivit-fe-tiny") -> Found:
    module, view = make_model(name)
    return found_of(module, view)


def export(found: Found, folder: Path, format: str, **options: Any) -> dict[str, Any]:
    return export_model(found, ExportRequest(format, output=folder, **options), notify=lambda text: None)


def agree(found: Found, folder: Path, tolerance: float, normalized: bool) -> None:
    """Hold what was exported against eager fp32, for several numbers of views."""
    spec = found.facts.spec.input
    clip = make_clip(spec, windows(spec.num_frames, 2, 3))
    indices = clip.view_indices if found.facts.uses_frame_indices else None
    eager = make_engine(found.module(), "cpu", "fp32")
    with load(weights=folder) as classifier:
        assert classifier.spec.input == spec
        assert classifier.labels == found.facts.labels
        assert classifier.uses_frame_indices == found.facts.uses_frame_indices
        engine = classifier.engine
        assert engine.name == FORMATS[read_artifact(folder).record.format].engine
        for count in (1, 3):
            some = None if indices is None else indices[:count]
            pixels = cut_clip(clip, 0)[:count]
            wanted = eager(pixels, some, pixel_scale_shift(spec))
            assert wanted.std() > min(100 * tolerance, 0.1)
            assert np.abs(engine(pixels, some, pixel_scale_shift(spec)) - wanted).max() < tolerance
            if normalized:
                assert np.abs(engine(clip.views[:count], some) - wanted).max() < tolerance
            else:
                with pytest.raises(DeviceError, match="takes pixels"):
                    engine(clip.views[:count], some)
        assert np.abs(classifier.clip_logits(clip)[0] - eager(clip.views, indices)).max() < tolerance


@needs_onnx
@every_architecture
def test_onnx_gives_the_logits_of_pytorch(architecture: str, tmp_path: Path) -> None:
    import onnx

    found = found_of(tiny(architecture))
    report = export(found, tmp_path / "model", "onnx", pixels=True)
    assert report["error"] < 1e-4
    agree(found, tmp_path / "model", 1e-4, normalized=False)
    model = onnx.load(tmp_path / "model" / "model.onnx")
    assert next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")) >= 18
    assert [part.name for part in model.graph.output] == ["logits"]
    first = model.graph.input[0]
    assert first.name == "pixels"
    assert first.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    dims = first.type.tensor_type.shape.dim
    assert dims[0].dim_param  # any number of views
    assert [dim.dim_value for dim in dims[1:]] == [FRAMES, *SIZE, 3]


@every_architecture
def test_pt2_gives_the_logits_of_pytorch(architecture: str, tmp_path: Path) -> None:
    found = found_of(tiny(architecture))
    assert export(found, tmp_path / "model", "pt2")["error"] < 1e-4
    agree(found, tmp_path / "model", 1e-4, normalized=True)


@needs_openvino
@every_architecture
def test_openvino_gives_the_logits_of_pytorch(architecture: str, tmp_path: Path) -> None:
    found = found_of(tiny(architecture))
    assert export(found, tmp_path / "model", "openvino")["error"] < 1e-4
    agree(found, tmp_path / "model", 1e-4, normalized=True)


PRECISIONS = [
    (f, p) for f, kind in FORMATS.items() if kind.engine for p in kind.precisions if p in ("bf16", "fp16")
]


@pytest.mark.parametrize(("format", "precision"), PRECISIONS)
def test_smaller_number_formats(format: str, precision: str, tmp_path: Path) -> None:
    if format == "onnx" and not HAS_ONNX:
        pytest.skip("ONNX is not installed")
    if format == "openvino" and find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    found = toy()
    sizes = {}
    for name in ("fp32", precision):
        report = export(found, tmp_path / name, format, precision=name)
        sizes[name] = report["bytes"]
    assert 1e-6 < report["error"] < 0.1
    assert read_artifact(tmp_path / precision).record.error == report["error"]
    assert sizes[precision] < 0.8 * sizes["fp32"]
    agree(found, tmp_path / precision, 0.02, normalized=True)
    with load(weights=tmp_path / precision) as classifier:
        assert classifier.engine.precision == precision


def test_pixels_of_float_resizing_stay_floats(tmp_path: Path) -> None:
    found = found_of(tiny("vit-frames"), VIEW.model_copy(update={"resize_rule": "float"}))
    export(found, tmp_path / "model", "pt2", pixels=True)
    assert read_artifact(tmp_path / "model").record.pixels == "float32"
    agree(found, tmp_path / "model", 1e-4, normalized=False)


@formats
def test_a_folder_says_itself_what_it_is(format: str, tmp_path: Path) -> None:
    found = toy()
    report = export(found, tmp_path / "model", format)
    folder = tmp_path / "model"
    record = json.loads((folder / RECORD).read_text())
    assert record["facts"]["spec"]["input"] == found.facts.spec.input.model_dump(mode="json")
    assert record["facts"]["labels"] == list(found.facts.labels or ())
    assert (record["format"], record["precision"], record["error"]) == (format, "fp32", report["error"])
    assert record["files"] == {
        file.name: file.stat().st_size for file in folder.iterdir() if file.name not in (RECORD, CARD)
    }
    card = (folder / CARD).read_text()
    for words in ("# toy", "MIT", f"{format}, fp32", "toy.safetensors", "32x32 pixels"):
        assert words in card
    assert str(tmp_path) not in (folder / RECORD).read_text() + card
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    found, folder = toy(), tmp_path / "model"
    export(found, folder, "pt2")
    before = (folder / RECORD).read_bytes()
    with pytest.raises(UsageError, match="overwrite"):
        export(found, folder, "pt2", precision="bf16")
    assert (folder / RECORD).read_bytes() == before
    export(found, folder, "pt2", precision="bf16", overwrite=True)
    assert read_artifact(folder).record.precision == "bf16"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("")
    with pytest.raises(UsageError, match="is not an exported model"):
        export(found, mine, "pt2", overwrite=True)
    assert (mine / "thesis.txt").exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine", "model"]


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(program: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    export(toy(), tmp_path / "old", "pt2")
    monkeypatch.setattr(torch.export, "save", full)
    for options in ({}, {"overwrite": True}):
        with pytest.raises(OutputError, match="No space left"):
            export(toy(), tmp_path / ("old" if options else "new"), "pt2", **options)
    assert [file.name for file in tmp_path.iterdir()] == ["old"]
    assert read_artifact(tmp_path / "old")
    with pytest.raises(OutputError, match="cannot be written"):
        export(toy(), tmp_path / "nowhere" / "model", "pt2")


def test_combinations_that_do_not_exist_are_refused_in_one_line(tmp_path: Path) -> None:
    refused = [
        ({"format": "gguf"}, "use one of safetensors, openvino, onnx, pt2"),
        ({"format": "onnx", "precision": "int8"}, "it has fp32, fp16; int8 exists in openvino"),
        ({"format": "openvino", "precision": "bf16"}, "runs in bf16 with precision=bf16"),
        ({"format": "openvino", "pixels": True}, "use format=onnx or pt2"),
        ({"format": "onnx", "output": None}, "name where to write it"),
        ({"format": "openvino", "precision": "int8"}, "calibrate: goes with int8"),
    ]
    for options, words in refused:
        with pytest.raises(UsageError) as caught:
            export_model(toy(), ExportRequest(**{"output": tmp_path / "out", **options}))
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_an_exported_model_cannot_do_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    export(toy(), folder, "pt2")
    for options, words in (
        ({"engine": "eager"}, "use engine=pt2"),
        ({"device": "mps"}, "device=cpu"),
        ({"precision": "bf16"}, "holds fp32"),
    ):
        with pytest.raises(DeviceError, match=words):
            load(weights=folder, **options)
    with pytest.raises(UsageError, match="was exported for"):
        load(weights=folder, num_frames=2)
    with pytest.raises(CheckpointError, match="holds vivit-fe"):
        load("vivit-st-tiny", weights=folder)
    with load("vivit-fe-tiny", weights=folder, num_views=3, stride=1) as classifier:
        assert (classifier.spec.name, classifier.spec.input.num_views) == ("vivit-fe-tiny", 3)
    for engine in ("onnxruntime", "pt2"):
        if engine == "onnxruntime" and find_spec("onnxruntime") is None:
            continue
        with pytest.raises(DeviceError, match=r"vidcls export .* --format"):
            load("camera-motion", engine=engine)


def test_records_of_strangers_are_checked(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    export(toy(), folder, "pt2")
    good = json.loads((folder / RECORD).read_text())
    (tmp_path / "secret").write_text("x")
    facts = good["facts"]
    for change in (
        {"version": 2},
        {"format": "safetensors"},
        {"precision": "fp64"},
        {"error": float("nan")},
        {"files": {"../secret": 1}},
        {"files": {str(tmp_path / "secret"): 1}},
        {"files": {"model.pt2": 1}},
        {"files": {}},
        {"pixels": "int64"},
        {"command": "rm -rf /"},
        {"facts": {**facts, "num_classes": 1 << 40}},
        {"facts": {**facts, "spec": {**facts["spec"], "input": {"num_frames": 1 << 40}}}},
        {"facts": {**facts, "spec": {**facts["spec"], "architecture": "skynet"}}},
        {"facts": []},
    ):
        (folder / RECORD).write_text(json.dumps({**good, **change}))
        with pytest.raises(CheckpointError):
            read_artifact(folder)
    for text in ("", "[", "[" * 100_000, "null", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")):
        (folder / RECORD).write_text(text)
        with pytest.raises(CheckpointError):
            read_artifact(folder)
    (folder / RECORD).write_text(json.dumps({**good, "facts": {**facts, "labels": ["one"]}}))
    with pytest.raises(ConfigError, match="1 labels for a model of 10"):
        load(weights=folder)


@formats
def test_a_model_that_is_not_what_its_record_says_is_an_error_in_one_line(
    format: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    export(toy(), folder, format)
    record = json.loads((folder / RECORD).read_text())
    record["facts"] |= {"num_classes": 7, "labels": None}
    record["facts"]["spec"] |= {"labels": str(folder / RECORD), "weights": {"path": str(folder)}}
    (folder / RECORD).write_text(json.dumps(record))
    with load(weights=folder) as classifier:
        assert classifier.labels == tuple(
            f"class {i}" for i in range(7)
        )  # no file that a stranger names is read
        spec = classifier.spec.input
        views = np.zeros((1, 3, spec.num_frames, *spec.image_size), np.float32)
        with pytest.raises(CheckpointError, match="gives logits of shape"):
            classifier.logits(views)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_in_an_exported_model_are_not_followed(tmp_path: Path) -> None:
    folder, other = tmp_path / "model", tmp_path / "secret"
    export(toy(), folder, "pt2")
    record = json.loads((folder / RECORD).read_text())
    (folder / "model.pt2").rename(other)
    (folder / "model.pt2").symlink_to(other)
    record["files"]["model.pt2"] = (folder / "model.pt2").lstat().st_size
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="incomplete"):
        read_artifact(folder)


def test_programs_of_strangers_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    export(toy(), folder, "pt2")
    monkeypatch.setenv("VIDCLS_CACHE", str(tmp_path / "other"))  # another machine

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(torch.export, "load", loaded)
    with pytest.raises(CheckpointError, match="VIDCLS_TRUST_PT2=1"):
        load(weights=folder).engine.precision  # noqa: B018
    monkeypatch.setenv("VIDCLS_TRUST_PT2", "1")
    with pytest.raises(DeviceError, match="loaded"):
        load(weights=folder).engine.precision  # noqa: B018


@needs_onnx
def test_a_damaged_model_is_an_error_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    export(toy(), folder, "onnx")
    path = folder / "model.onnx"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(DeviceError, match=r"export .* again"):
        load(weights=folder).engine.precision  # noqa: B018


@needs_onnx
def test_onnx_runs_without_torch_and_without_vidcls(tmp_path: Path) -> None:
    """The example of docs/export.md, as it stands there."""
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    found = toy("vivit-st-tiny")
    export(found, tmp_path / "exported", "onnx", pixels=True)
    spec = found.facts.spec.input
    clip = make_clip(spec.model_copy(update={"num_crops": 1}), windows(spec.num_frames, 2, 2))
    pixels = cut_clip(clip, 0)[:2]
    np.save(tmp_path / "frames.npy", pixels)
    check = "import sys; assert 'torch' not in sys.modules and 'vidcls' not in sys.modules"
    script = f"{code}\nprint(list(map(float, logits[0])))\n{check}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    label, row = done.stdout.splitlines()[-2:]
    eager = make_engine(found.module(), "cpu", "fp32")(pixels, None, pixel_scale_shift(spec))
    assert np.abs(np.array(json.loads(row)) - eager[0]).max() < 1e-4
    assert label == (found.facts.labels or ())[int(eager.mean(0).argmax())]


def test_every_export_format_has_an_engine_that_exists() -> None:
    for name, kind in FORMATS.items():
        assert kind.engine is None or set(kind.precisions) <= set(ENGINES[kind.engine].precisions), name
