"""Any model of timm from a folder or a file: against timm's own loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import timm
import torch
from packaging.version import Version
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.conftest import golden_dirs
from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.checkpoints.base import Raw
from vidcls.checkpoints.timm_config import input_fields
from vidcls.config import InputSpec
from vidcls.errors import CheckpointError, ConfigError, VidclsError
from vidcls.models import build
from vidcls.views.transform import apply_transform, make_views, plan_clips

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 24)}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain ViT": ("vit_small_patch16_224", VIT),
    "fc_norm": ("vit_small_patch16_224", {**VIT, "global_pool": "avg"}),
    "norm before the mean": ("vit_small_patch16_224", {**VIT, "global_pool": "avg", "fc_norm": False}),
    "no class token": ("vit_small_patch16_224", {**VIT, "global_pool": "avg", "class_token": False}),
    "register tokens": ("vit_small_patch16_224", {**VIT, "reg_tokens": 3, "global_pool": "avg"}),
    "LayerScale": ("vit_small_patch16_224", {**VIT, "init_values": 0.1}),
    "positions of patches only": ("vit_small_patch16_224", {**VIT, "no_embed_class": True, "reg_tokens": 1}),
    "attention pooling": ("vit_small_patch16_224", {**VIT, "global_pool": "map", "class_token": False}),
    "oblong": ("vit_small_patch16_224", {**VIT, "img_size": [16, 32]}),
    "distilled": ("deit_tiny_distilled_patch16_224", VIT),
    "two heads that are added": ("volo_d1_224", {"img_size": 32}),
    "ConvNeXt": ("convnext_atto", CONVNEXT),
    "ResNet": ("resnet18", {"channels": (8, 16, 16, 24)}),
    "EfficientNet": ("tf_efficientnet_lite0", {}),
    "Swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4},
    ),
}


def make(folder: Path, architecture: str, arguments: dict[str, Any], **config: Any) -> Any:
    """Save a model as timm's hub has it; returns it in float64."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=5, **arguments).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor += 0.1 * torch.rand_like(tensor)
    model.set_grad_checkpointing(False)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, folder / "model.safetensors")
    size = arguments.get("img_size", 32)
    size = size if isinstance(size, list) else [size, size]
    cfg = {"input_size": [3, *size], "num_classes": 5, **config.pop("pretrained_cfg", {})}
    top = {
        "architecture": architecture,
        "num_classes": 5,
        "model_args": arguments,
        "pretrained_cfg": cfg,
        **config,
    }
    (folder / "config.json").write_text(json.dumps(top))
    return model.double()


def difference(ours: Any, theirs: Any, size: tuple[int, int]) -> float:
    frames = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        return float((ours.double()(frames.unsqueeze(2)) - theirs(frames)).abs().max())


@pytest.mark.parametrize("name", list(MODELS))
def test_folders_compute_what_timm_does(tmp_path: Path, name: str) -> None:
    architecture, arguments = MODELS[name]
    theirs = make(tmp_path, architecture, arguments)
    ours: Any = load_checkpoint(tmp_path)
    assert ours.architecture == ("vit-frames" if name in ("plain ViT", "oblong") else "timm-frames")
    size = arguments.get("img_size", 32)
    assert difference(ours, theirs, tuple(size) if isinstance(size, list) else (size, size)) < 1e-9
    frames = torch.randn(1, 3, 3, *ours.config.image_size, dtype=torch.float64)
    with torch.no_grad():  # a video's logits are the mean of its frames'
        one_by_one = torch.stack([ours(frames[:, :, t : t + 1]) for t in range(3)])
        torch.testing.assert_close(ours(frames), one_by_one.mean(0))
    ours.reset_head(3)
    assert ours(frames).shape == (1, 3)


@pytest.mark.parametrize("name", ["plain ViT", "register tokens", "ConvNeXt"])
@pytest.mark.parametrize(("outer", "inner"), [("state_dict", "module."), ("", "_orig_mod."), ("model", "")])
def test_folders_whose_weights_a_training_script_wrapped(
    tmp_path: Path, name: str, outer: str, inner: str
) -> None:
    architecture, arguments = MODELS[name]
    theirs = make(tmp_path, architecture, arguments)
    state = {inner + key: tensor for key, tensor in load_file(tmp_path / "model.safetensors").items()}
    (tmp_path / "model.safetensors").unlink()
    torch.save({outer: state} if outer else state, tmp_path / "model.pth.tar")
    assert difference(load_checkpoint(tmp_path), theirs, (32, 32)) < 1e-9


def test_a_folder_tells_labels_and_preprocessing(tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(5)]
    described = {name: f"thing {name}" for name in names}
    cfg = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3], "interpolation": "bilinear", "crop_pct": 0.95}
    make(tmp_path, *MODELS["ConvNeXt"], label_names=names, label_descriptions=described, pretrained_cfg=cfg)
    read = read_checkpoint(tmp_path)
    assert read.labels == tuple(described.values())
    assert read.input is not None
    assert (read.input["resize"], read.input["interpolation"], read.input["mean"]) == (
        33,
        "bilinear",
        (0.4, 0.5, 0.6),
    )


def test_the_old_flat_form(tmp_path: Path) -> None:
    theirs = make(tmp_path, *MODELS["ConvNeXt"])
    config = json.loads((tmp_path / "config.json").read_text())
    cfg = config.pop("pretrained_cfg")
    (tmp_path / "config.json").write_text(json.dumps({**cfg, **config, "labels": list("abcde")}))
    read = read_checkpoint(tmp_path)
    assert read.labels == tuple("abcde")
    assert difference(load_checkpoint(tmp_path), theirs, (32, 32)) < 1e-9


def test_another_size_is_fitted_by_timm(tmp_path: Path) -> None:
    make(tmp_path, *MODELS["fc_norm"])
    theirs = timm.create_model(
        f"local-dir:{tmp_path}", pretrained=True, img_size=48, **{k: v for k, v in VIT.items() if k != "img_size"},
        global_pool="avg", num_classes=5,
    ).eval()  # fmt: skip
    ours = load_checkpoint(tmp_path, image_size=48)
    assert difference(ours, theirs.double(), (48, 48)) < 1e-9


def test_a_bare_file_with_the_models_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=7).eval()
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    ours: Any = load_checkpoint(tmp_path / "weights.pth", "timm-frames", model="resnet18")
    assert ours.num_classes == 7
    assert difference(ours, model.double(), (64, 64)) < 1e-9
    with pytest.raises(VidclsError, match="does not say which model of timm"):
        load_checkpoint(tmp_path / "weights.pth", format="timm")
    with pytest.raises(CheckpointError, match="do not fit timm's resnet50"):
        load_checkpoint(tmp_path / "weights.pth", "timm-frames", model="resnet50")


def spoiled(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"architecture": "no_such_net"}, "timm has no model 'no_such_net'"),
        ({"architecture": "hf-hub:timm/resnet18.a1_in1k"}, "timm has no model"),
        ({"num_classes": 0}, "has no classifier"),
        ({"num_classes": 6}, "1 misshapen|misshapen|do not fit"),
        (
            {"model_args": {"depths": [1, 1, 1, 1], "dims": [800, 1600, 1600, 2400]}},
            "do not fit timm's convnext_atto",
        ),
        ({"model_args": {**CONVNEXT, "no_such_argument": 1}}, "cannot be built"),
        ({"pretrained_cfg": {"input_size": [1, 32, 32], "num_classes": 5}}, "1 channels"),
    ],
)
def test_what_is_wrong_with_a_folder(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    make(tmp_path, *MODELS["ConvNeXt"])
    spoiled(tmp_path, **changes)
    with pytest.raises(VidclsError, match=problem):
        load_checkpoint(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    make(tmp_path, *MODELS["ConvNeXt"])
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["stages.0.blocks.0.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing \(stages.0.blocks.0.norm.weight\)"):
        load_checkpoint(tmp_path)


def test_nothing_is_fetched_or_opened_by_a_configuration(tmp_path: Path) -> None:
    theirs = make(tmp_path, *MODELS["ConvNeXt"])
    spoiled(tmp_path, model_args={**CONVNEXT, "pretrained": True, "checkpoint_path": "/etc/passwd"})
    assert difference(load_checkpoint(tmp_path), theirs, (32, 32)) < 1e-9
    with pytest.raises(ConfigError, match="pretrained cannot be set"):
        build("timm-frames", model="resnet18", model_args={"pretrained": True})


def variants() -> list[Any]:
    return [
        pytest.param(folder, name, side, id=f"{folder.parents[1].name}-{name}-{side}")
        for folder in golden_dirs("preprocess-timm")
        for name in json.loads((folder / "case.json").read_text())["variants"]
        for side in ("landscape", "portrait")
    ]


@pytest.mark.parametrize(("folder", "name", "side"), variants())
def test_pixels_are_timms(folder: Path, name: str, side: str) -> None:
    if (name.startswith("squash"), side) == (True, "portrait") and Version(PIL.__version__).major < 13:
        pytest.skip(
            "before Pillow 13 a resize that shrinks one side and enlarges the other gives other pixels"
        )
    case = json.loads((folder / "case.json").read_text())
    settings = {**case["variants"][name], "mean": case["mean"], "std": case["std"], "input_size": [3, 32, 32]}
    raw = Raw(folder, "timm", {}, {"config": {"architecture": "resnet18", "pretrained_cfg": settings}})
    spec = InputSpec(num_frames=1, stride=1, num_views=1, sampling="uniform", **input_fields(raw))
    with np.load(folder / "io.npz") as io:
        video = io[f"frame_{side}"][None]
        plan = plan_clips(spec, num_frames=1, fps=25.0)
        views = make_views(apply_transform(video, spec), plan.unique, plan, spec)
        np.testing.assert_allclose(views[0, :, 0], io[f"{name}_{side}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(37, 80), (80, 37), (20, 25), (32, 32), (100, 33)])
@pytest.mark.parametrize("crop", [(32, 32), (32, 48), (50, 17), (32, 33)])
def test_any_picture_is_cut_as_timm_does(mode: str, size: tuple[int, int], crop: tuple[int, int]) -> None:
    settings = {"crop_mode": mode, "crop_pct": 0.9, "input_size": [3, *crop], "mean": [0.4, 0.5, 0.6]}
    raw = Raw(Path("x"), "timm", {}, {"config": {"architecture": "resnet18", "pretrained_cfg": settings}})
    spec = InputSpec(num_frames=1, stride=1, num_views=1, sampling="uniform", **input_fields(raw))
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    plan = plan_clips(spec, num_frames=1, fps=25.0)
    ours = make_views(apply_transform(frame[None], spec), plan.unique, plan, spec)[0, :, 0]
    transform = timm.data.create_transform(
        (3, *crop), mean=(0.4, 0.5, 0.6), crop_pct=0.9, crop_mode=mode, interpolation="bicubic"
    )
    theirs: Tensor = transform(Image.fromarray(frame))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
