"""A published checkpoint of 400 classes becomes a classifier of three others, by a probe and by training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.conftest import GOLDENS
from tests.training.moving import make_folder
from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.models import build
from vidcls.training import checkpointing
from vidcls.training.prepare import Prepared
from vidcls.training.probe.run import train_probe
from vidcls.training.recipe import Recipe
from vidcls.training.recipe_file import recipe_text
from vidcls.zoo.find import find_model

TINY: dict[str, Any] = {
    "image_size": (32, 32), "num_frames": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 400,
}  # fmt: skip


def hugging_face(folder: Path, architecture: str) -> str:
    pytest.importorskip("transformers")
    from vidcls.bench.reference import save_reference

    patches = (
        {"patch_size": (8, 8)} if architecture.startswith("timesformer") else {"tubelet_size": (2, 8, 8)}
    )
    save_reference(architecture, {**TINY, **patches}, str(folder))
    return str(folder)


def timm_vit(folder: Path) -> str:
    timm = pytest.importorskip("timm")
    folder.mkdir()
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=400)
    save_file(model.state_dict(), folder / "vit.safetensors")
    return str(folder / "vit.safetensors")


def facebook(folder: Path) -> str:
    """TimeSformer as its authors publish it: the settings are in the file."""
    folder.mkdir()
    model = build("timesformer-divided", **{**TINY, "embed_dim": 64, "num_heads": 1}, patch_size=8)
    settings = {
        "DATA": {"NUM_FRAMES": 4, "TRAIN_CROP_SIZE": 32, "TEST_CROP_SIZE": 32, "SAMPLING_RATE": 2},
        "TIMESFORMER": {"ATTENTION_TYPE": "divided_space_time"},
        "MODEL": {"NUM_CLASSES": 400},
    }
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 14, "model_state": state, "cfg": yaml.safe_dump(settings)}, folder / "model.pyth")
    return str(folder / "model.pyth")


FAMILIES = {
    "hf-vivit": lambda folder: hugging_face(folder, "vivit-st"),
    "hf-timesformer": lambda folder: hugging_face(folder, "timesformer-divided"),
    "hf-videomae": lambda folder: hugging_face(folder, "videomae"),
    "pyth": facebook,
    "timm": timm_vit,
    "scenic": lambda _: str(GOLDENS / "scenic-spacetime" / "checkpoint_old.msgpack"),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("published") / "set", 2)


def recipe_from(checkpoint: str, clips: Path, **changes: Any) -> Recipe:
    """Train what the checkpoint holds, at its own sizes."""
    facts = find_model(weights=checkpoint).facts
    settings: dict[str, Any] = {
        "model": facts.spec.architecture,
        "config": {key: value for key, value in facts.config.items() if key != "num_classes"},
        "input": {**facts.spec.input.model_dump(mode="json"), "num_views": 1, "num_crops": 1},
        "data": str(clips),
        "init": {"from": checkpoint},
        "schedule": {"epochs": 1},
        "batch_size": 3,
        "workers": 0,
    }
    return Recipe.model_validate({**settings, **changes})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_by_probe(family: str, clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    checkpoint = FAMILIES[family](tmp_path / "published")
    plan = Recipe.model_validate(
        {"data": str(clips), "init": {"from": checkpoint}, "input": {"num_views": 1, "num_crops": 1}}
    )
    result = train_probe(plan, tmp_path / "run", device="cpu", quiet=True)
    assert read_checkpoint(result.weights).labels == ("down", "left", "right")
    ours, published = (
        load_checkpoint(result.weights).state_dict(),
        find_model(weights=checkpoint).module().state_dict(),
    )
    assert ours.keys() == published.keys()
    assert all(torch.equal(ours[name], published[name]) for name in ours if not name.startswith("head"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_training_starts_with_its_backbone_and_a_new_head(family: str, clips: Path, tmp_path: Path) -> None:
    checkpoint = FAMILIES[family](tmp_path / "published")
    model = Prepared(recipe_from(checkpoint, clips), "cpu", quiet=True).plain
    ours, published = model.state_dict(), find_model(weights=checkpoint).module().state_dict()
    assert ours["head.weight"].shape[0] == 3
    assert all(torch.equal(ours[name], published[name]) for name in ours if not name.startswith("head"))


RUN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from vidcls.training.recipe_file import plan_run
from vidcls.training.trainer import train
out = Path(sys.argv[2])
recipe, resuming = plan_run(out, sys.argv[1], {}, [], True)
train(recipe, out, resume=resuming, device="cpu")
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize(
    "family", [name if name == "scenic" else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_training_from_a_published_checkpoint_survives_a_kill(
    family: str, clips: Path, tmp_path: Path
) -> None:
    checkpoint = FAMILIES[family](tmp_path / "published")
    config, out = tmp_path / "recipe.yaml", tmp_path / "run"
    config.write_text(recipe_text(recipe_from(checkpoint, clips, schedule={"epochs": 3}, save_every=1)))
    command = [sys.executable, "-c", RUN, str(config), str(out)]
    process = subprocess.Popen(command)
    while process.poll() is None and not (out / checkpointing.STATE).exists():
        time.sleep(0.001)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert subprocess.run(command).returncode == 0
    assert load_file(out / checkpointing.BEST)["head.weight"].shape[0] == 3
    assert subprocess.run([*command[:3], str(config), str(tmp_path / "whole")]).returncode == 0
    broken, whole = load_file(out / checkpointing.LAST), load_file(tmp_path / "whole" / checkpointing.LAST)
    assert all(torch.equal(broken[name], whole[name]) for name in whole)
