"""Every reference case in every file that holds it, through the real loader: logits within 2e-5.

The formats' own tests look at each stage; here is the one list of all of them. A case's description is given to the
loader in full, so that what the file says and what the caller knows must agree.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vidcls
from tests.conftest import golden_dirs
from vidcls.checkpoints import FORMATS

TOLERANCE = 2e-5
SUFFIXES = (".npz", ".msgpack", ".pyth", ".pth", ".safetensors")
# Inputs and outputs; and files that hold another model than the case's logits belong to.
NOT_MODELS = ("io.npz", "vit.safetensors", "vit_augreg_layout.npz")
CASES = ("scenic-*", "timesformer-*", "vivit-*", "vtn*", "vit-*")
SCENIC = {
    "spacetime": "vivit-st",
    "factorized_encoder": "vivit-fe",
    "factorized_self_attention_block": "vivit-fsa",
    "factorized_dot_product_attention": "vivit-fdp",
}
ATTENTION = {
    "divided_space_time": "timesformer-divided",
    "joint_space_time": "timesformer-joint",
    "space_only": "timesformer-space",
}


def model_files() -> list[Any]:
    """Each checkpoint file of each case; a Hugging Face folder counts as one."""
    found = []
    for folder in golden_dirs(*CASES):
        if not (folder / "io.npz").is_file():
            continue
        is_hf = (folder / "config.json").is_file()
        files = [folder] if is_hf else sorted(folder.iterdir())
        for path in files:
            if is_hf or (path.suffix in SUFFIXES and path.name not in NOT_MODELS):
                name = folder.name if is_hf else f"{folder.name}-{path.name}"
                found.append(pytest.param(folder, path, id=f"{folder.parent.parent.name}-{name}"))
    return found


def described(case: dict[str, Any], path: Path) -> tuple[str, str, dict[str, Any]]:
    """Say the format, the architecture, and all keywords by which a caller would describe the case."""
    if "variant" in case:
        spatial = case.get("spatial_transformer", case)
        keywords = {
            "num_frames": case["num_frames"],
            "image_size": case["crop_size"],
            "tubelet_size": case["tubelet_thw"],
            "num_heads": spatial["num_heads"],
            "num_classes": case["num_classes"],
        }
        if "temporal_transformer" in case:
            keywords["temporal_num_heads"] = case["temporal_transformer"]["num_heads"]
        if "attention_config_extra" in case:
            keywords["attention_order"] = case["attention_config_extra"]["attention_order"]
        return "scenic", SCENIC[case["variant"]], keywords
    if "vtn" in case:
        keywords = {
            "num_frames": case["num_frames"],
            "image_size": case["backbone"]["img_size"],
            "patch_size": case["backbone"]["patch_size"],
            "num_heads": case["backbone"]["num_heads"],
            "temporal_num_heads": case["vtn"]["num_attention_heads"],
            "attention_window": case["vtn"]["attention_window"],
            "num_classes": case["num_classes"],
        }
        return "vtn_slowfast", "vtn", keywords
    if "patch_hw" in case:
        size = {"image_size": case["image_size"], "patch_size": case["patch_hw"]}
        return (
            "scenic_vit",
            "vit-frames",
            {**size, "num_heads": case["num_heads"], "num_classes": case["num_classes"]},
        )
    config = case["config"]
    keywords = {
        "image_size": config.get("img_size", config.get("image_size")),
        "num_heads": config.get("num_heads", config.get("num_attention_heads")),
        "num_classes": config.get("num_classes", config.get("num_labels")),
    }
    if "num_frames" in config:
        keywords["num_frames"] = config["num_frames"]
    if "tubelet_size" in config:
        return "hf_vivit", "vivit-st", {**keywords, "tubelet_size": config["tubelet_size"]}
    keywords["patch_size"] = config["patch_size"]
    attention = config.get("attention_type", case.get("attention_type"))
    if attention is None:
        name = "hf_vit" if path.is_dir() else "google_npz" if path.suffix == ".npz" else "timm_vit"
        return name, "vit-frames", keywords
    if path.is_dir() and attention == "space_only":  # refused as timesformer-space, see its own tests
        return "hf_timesformer", "vit-frames", keywords
    return "hf_timesformer" if path.is_dir() else "timesformer_fb", ATTENTION[attention], keywords


def golden_views(io: Any, case: dict[str, Any]) -> Tensor:
    """The case's input as views (b, c, t, h, w)."""
    if "seed" in io:
        return torch.randn(tuple(io["shape"]), generator=torch.Generator().manual_seed(int(io["seed"])))
    values = io["x"] if "x" in io else io["input"]
    if values.dtype == np.uint8:
        values = values.astype(np.float32) * np.float32(2 / 255) - 1
    views = torch.from_numpy(values)
    layout = "B T H W C" if "x" in io else case["input_layout"].partition("(")[0].strip()
    if views.ndim == 4:  # images: a video of one frame each
        views, layout = views.unsqueeze(1), "B T H W C" if "x" in io else "B T C H W"
    return views.permute(*(layout.split().index(axis) for axis in "BCTHW"))


@pytest.mark.parametrize(("folder", "path"), model_files())
@pytest.mark.parametrize("keywords", ["all keywords", "only what is needed"])
def test_goldens(folder: Path, path: Path, keywords: str) -> None:
    case = json.loads((folder / "case.json").read_text())
    name, architecture, given = described(case, path)
    assert name in FORMATS
    if keywords == "only what is needed":
        open_ones = ("attention_order",)
        if name in ("timesformer_fb", "timm_vit", "vtn_slowfast"):  # heads of other than 64 channels
            open_ones = (
                "num_heads",
                *(("temporal_num_heads", "attention_window") * (path.suffix != ".pyth")),
            )
        elif architecture in ("vivit-st", "vivit-fdp"):  # how many of the tokens are in time
            open_ones = ("num_frames", "image_size")
        given = {key: value for key, value in given.items() if key in open_ones}
        if architecture not in ("vivit-fdp", "vit-frames"):
            architecture = ""
    model = vidcls.load_checkpoint(path, architecture or None, **given)
    with np.load(folder / "io.npz") as io, torch.no_grad():
        views, expected = golden_views(io, case), torch.from_numpy(io["logits"])
        if "position_ids" in io:
            logits = model(views, frame_indices=torch.from_numpy(io["position_ids"]))
        else:
            logits = model(views)
    if len(expected) == len(views) * views.shape[2] > len(views):  # HF's space_only: a row for each frame
        expected = expected.reshape(len(views), -1, expected.shape[-1]).mean(1)
    assert not model.training
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() <= TOLERANCE


def test_there_are_cases_of_every_kind() -> None:
    formats = {
        described(json.loads((p.values[0] / "case.json").read_text()), p.values[1])[0] for p in model_files()
    }
    assert formats >= {"scenic", "timesformer_fb", "google_npz"}  # those that the tests carry themselves
