"""Each family of third-party errors is turned into one of ours at one seam; none reaches a person as it is.

The list is the rule: a new dependency that raises errors of its own gets a case here.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidcls
from tests.clips import make_clip
from vidcls.config import load_registry, read_yaml
from vidcls.errors import (
    CheckpointError,
    ConfigError,
    DependencyError,
    DeviceError,
    InputError,
    UsageError,
    VidclsError,
    VideoError,
    WeightsError,
)

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Case:
    """Something that a third party refuses.

    Attributes:
        library: Whose error it is.
        seam: Module or room of vidcls that turns it into ours; for what happens in the decoding process, the one that
            hands it on.
        raises: The error that it becomes.
        act: Provokes it, in an empty folder.
        package: What must be installed for it.
    """

    library: str
    seam: str
    raises: type[VidclsError]
    act: Callable[[Path, Patch], object]
    package: str = ""


def raiser(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def toml(folder: Path, _: Patch) -> object:
    from vidcls.cli.config_file import _load

    (folder / "config.toml").write_text("[predict\n", encoding="utf-8")
    return _load(folder / "config.toml")


def torch_file(folder: Path, _: Patch) -> object:
    import torch

    torch.save({"weight": torch.zeros(3)}, folder / "model.pth")
    whole = (folder / "model.pth").read_bytes()
    (folder / "model.pth").write_bytes(whole[: len(whole) // 2])
    return vidcls.load_checkpoint(folder / "model.pth")


def safetensors_file(folder: Path, _: Patch) -> object:
    (folder / "model.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    return vidcls.load_checkpoint(folder / "model.safetensors")


def torch_fault(message: str, kind: str) -> Callable[[Path, Patch], object]:
    def act(_: Path, __: Patch) -> object:
        import torch

        from vidcls.engines import make_engine

        class Model(torch.nn.Module):
            forward = raiser(getattr(torch, kind, RuntimeError)(message))

        return make_engine(Model(), "cpu", "fp32")(np.zeros((1, 3, 1, 2, 2), np.float32))

    return act


def torch_device(_: Path, __: Patch) -> object:
    return vidcls.load("vit-tiny-frames", random_weights=True, device="toaster", engine="eager").engine


def ffmpeg(folder: Path, _: Patch) -> object:
    (folder / "clip.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\xff" * 4096)
    with vidcls.VideoReader("pyav") as reader:
        return reader.open(folder / "clip.mp4")


def decord(folder: Path, _: Patch) -> object:
    path = make_clip(folder / "clip.mp4", 40, size=(64, 64))
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (data.find(b"moov") - start) // 8
    data[middle : data.find(b"moov") - 8] = bytes(data.find(b"moov") - 8 - middle)
    path.write_bytes(data)
    with vidcls.VideoReader("decord") as reader:
        info = reader.open(path)
        return reader.read(np.arange(info.num_frames))


def pyarrow(folder: Path, _: Patch) -> object:
    from vidcls.score.listing import Inputs

    (folder / "clips.parquet").write_bytes(b"PAR1" + b"\xff" * 64 + b"PAR1")
    return Inputs([str(folder / "clips.parquet")], None, "").at_least(1)


def pydantic_file(folder: Path, _: Patch) -> object:
    (folder / "models.yaml").write_text(
        "models: {one: {architecture: vit-frames, input: {num_frames: many}}}\n"
    )
    return load_registry(folder / "models.yaml")


def pydantic_parameter(_: Path, __: Patch) -> object:
    return vidcls.load("vit-tiny-frames", random_weights=True, num_crops=2)


def yaml(folder: Path, _: Patch) -> object:
    (folder / "models.yaml").write_text("models: {one: [unclosed\n\t- x: *nothing\n")
    return read_yaml(folder / "models.yaml")


def openvino_file(folder: Path, _: Patch) -> object:
    from vidcls.engines.openvino import WHOLE, OpenVINOEngine

    (folder / "whole.xml").write_text("<net name='broken'>")
    engine = OpenVINOEngine({WHOLE: folder / "whole.xml"}, "fp32", 0)
    return engine(np.zeros((1, 3, 2, 8, 8), np.float32))


def hub(name: str) -> Callable[[Path, Patch], object]:
    def act(_: Path, patch: Patch) -> object:
        import huggingface_hub
        from huggingface_hub import errors

        # Its own errors want an answer of the HTTP client that it uses, another one every few versions.
        kind: type[Exception] = getattr(errors, name, ConnectionError)
        error = kind.__new__(kind)
        error.args = ("refused",)
        patch.setattr(huggingface_hub, "snapshot_download", raiser(error))
        return vidcls.load(weights="hub:someone/something")

    return act


def web(error: BaseException) -> Callable[[Path, Patch], object]:
    def act(_: Path, patch: Patch) -> object:
        patch.setattr("vidcls.video.http.WAITS", ())
        patch.setattr(urllib.request.OpenerDirector, "open", raiser(error))
        return vidcls.load(weights="http://127.0.0.1:9/model.safetensors")

    return act


def web_clip(error: BaseException) -> Callable[[Path, Patch], object]:
    def act(_: Path, patch: Patch) -> object:
        patch.setattr("vidcls.video.http.WAITS", ())
        patch.setattr(urllib.request.OpenerDirector, "open", raiser(error))
        with vidcls.load("camera-motion", device="cpu") as model:
            return model.predict("http://127.0.0.1:9/clip.mp4")

    return act


def missing(module: str, act: Callable[[Path, Patch], object]) -> Callable[[Path, Patch], object]:
    def without(folder: Path, patch: Patch) -> object:
        for name in [n for n in sys.modules if n == module or n.startswith(f"{module}.")]:
            patch.delitem(sys.modules, name)
        patch.setitem(sys.modules, module, None)
        return act(folder, patch)

    return without


REFUSED = urllib.error.HTTPError("http://127.0.0.1:9", 403, "Forbidden", http.client.HTTPMessage(), None)
CASES = [
    Case("torch", "checkpoints", CheckpointError, torch_file),
    Case("torch: memory", "engines.torch", DeviceError, torch_fault("x", "OutOfMemoryError")),
    Case("torch: memory of a CPU", "engines.torch", DeviceError, torch_fault("can't allocate memory", "")),
    Case("torch: device", "engines", DeviceError, torch_device),
    Case("safetensors", "checkpoints", CheckpointError, safetensors_file),
    Case("av (FFmpeg)", "video.reader", VideoError, ffmpeg),
    Case("decord", "video.reader", VideoError, decord, "decord"),
    Case("pyarrow", "video.manifests", UsageError, pyarrow, "pyarrow"),
    Case("pyarrow is not there", "output.parquet", DependencyError, missing("pyarrow", pyarrow)),
    Case("pydantic: a file", "config", ConfigError, pydantic_file),
    Case("pydantic: a parameter", "inference.load", UsageError, pydantic_parameter),
    Case("yaml", "config", ConfigError, yaml),
    Case("tomli, tomllib", "cli.config_file", ConfigError, toml),
    Case("OpenVINO", "engines.openvino", DeviceError, openvino_file, "openvino"),
    Case("OpenVINO is not there", "engines.openvino", DependencyError, missing("openvino", openvino_file)),
    Case("huggingface_hub: not found", "zoo.weights", WeightsError, hub("RepositoryNotFoundError")),
    Case("huggingface_hub: gated", "zoo.weights", WeightsError, hub("GatedRepoError")),
    Case("huggingface_hub: revision", "zoo.weights", WeightsError, hub("RevisionNotFoundError")),
    Case("huggingface_hub: its HTTP client", "zoo.weights", WeightsError, hub("ConnectError")),
    Case("HTTP: refused", "zoo.weights", WeightsError, web(REFUSED)),
    Case("HTTP: no network", "zoo.weights", WeightsError, web(urllib.error.URLError("no route"))),
    Case("HTTP: certificate", "zoo.weights", WeightsError, web(ssl.SSLCertVerificationError("expired"))),
    Case("HTTP: name", "zoo.weights", WeightsError, web(socket.gaierror(-2, "unknown"))),
    Case("HTTP: nonsense", "zoo.weights", WeightsError, web(http.client.BadStatusLine("?"))),
    Case("HTTP: a clip", "video.fetch", InputError, web_clip(http.client.IncompleteRead(b""))),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.library)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_third_party_error_becomes_ours(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.package and find_spec(case.package) is None:
        pytest.skip(f"{case.package} is not installed")
    monkeypatch.setenv("VIDCLS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(VidclsError) as caught:
        case.act(tmp_path, monkeypatch)
    assert isinstance(caught.value, case.raises), repr(caught.value)
    raised_in = {entry.frame.f_globals.get("__name__", "") for entry in caught.traceback}
    passed = [name for name in raised_in if name.startswith(f"vidcls.{case.seam}")]
    assert passed, raised_in
    text = str(caught.value)
    assert text.startswith(f"{caught.value.subject}: ")
    assert "Traceback" not in text
    assert len(text.splitlines()) <= 3
    assert 1 <= caught.value.exit_code <= 3


def test_every_dependency_that_raises_is_listed() -> None:
    import re

    tomllib = pytest.importorskip("tomllib")  # from 3.11 on

    project = Path(__file__).parents[1] / "pyproject.toml"
    if not project.is_file():
        pytest.skip("no pyproject.toml beside the tests")
    declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {re.split(r"[^\w-]", line)[0].lower().replace("_", "-") for line in declared}
    # What raises nothing of its own that could reach a person, or is caught where its one call is.
    quiet = {"numpy", "typer", "rich", "pillow", "filelock", "msgpack", "packaging", "platformdirs", "psutil"}
    quiet |= {"jinja2"}  # its templates are vidcls's own
    libraries = " ".join(case.library for case in CASES).lower().replace("_", "-").replace("yaml", "pyyaml")
    assert {name for name in names - quiet if name not in libraries} == set()
