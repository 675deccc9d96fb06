from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import golden_dirs
from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.errors import CheckpointError

TOLERANCE = 2e-5

SIZES: list[dict[str, Any]] = [
    {},
    {
        "num_frames": 6,
        "tubelet_size": [3, 4, 6],
        "image_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    },
    {"hidden_act": "gelu", "layer_norm_eps": 1e-2, "qkv_bias": False, "num_channels": 1},
    {"hidden_act": "relu", "intermediate_size": 8, "tubelet_size": [1, 8, 8]},
]


def save(folder: Path, **changes: Any) -> Any:
    """A tiny Hugging Face model with random weights, saved to ``folder``."""
    from transformers import VivitConfig, VivitForVideoClassification

    sizes = {
        "image_size": 16,
        "num_frames": 4,
        "tubelet_size": [2, 8, 8],
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "num_labels": 5,
    }
    torch.manual_seed(3)
    model = VivitForVideoClassification(VivitConfig(**{**sizes, **changes})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model


def views_of(config: Any) -> torch.Tensor:
    shape = (2, config.in_channels, config.num_frames, *config.image_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("changes", SIZES)
@torch.no_grad()
def test_equals_transformers(changes: dict[str, Any], tmp_path: Path) -> None:
    reference = save(tmp_path, **changes)
    model: Any = load_checkpoint(tmp_path)
    views = views_of(model.config)
    expected = reference(views.transpose(1, 2), output_hidden_states=True)
    assert expected.logits.std() > 0.1
    tokens = model.encoder.encode(model.embed(views).flatten(1, 2))
    last = reference.vivit(views.transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(tokens, last, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(model(views), expected.logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("folder", golden_dirs("vivit-hf*"), ids=lambda folder: folder.name)
@torch.no_grad()
def test_golden(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    settings = json.loads((folder / "config.json").read_text())
    assert (checkpoint.format, checkpoint.architecture) == ("hf_vivit", "vivit-st")
    assert checkpoint.config["norm_eps"] == settings["layer_norm_eps"]
    assert checkpoint.labels == tuple(settings["id2label"][str(i)] for i in range(len(settings["id2label"])))
    model: Any = load_checkpoint(folder)
    with np.load(folder / "io.npz") as io:
        views = torch.from_numpy(io["input"]).transpose(1, 2)
        tokens = model.encoder.encode(model.embed(views).flatten(1, 2))
        known = torch.from_numpy(io["last_hidden_state"])
        assert (tokens[:, : known.shape[1]] - known).abs().max() < TOLERANCE
        assert (model(views) - torch.from_numpy(io["logits"])).abs().max() < TOLERANCE


def test_the_folder_says_how_it_sees_a_video(tmp_path: Path) -> None:
    from transformers import VivitImageProcessor

    save(tmp_path, num_labels=2, id2label={0: "run", 1: "walk"}, label2id={"run": 0, "walk": 1})
    VivitImageProcessor(crop_size={"height": 16, "width": 16}, size={"shortest_edge": 20}).save_pretrained(
        tmp_path
    )
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.labels == ("run", "walk")
    assert checkpoint.input is not None
    assert checkpoint.input["image_size"] == (16, 16)
    assert checkpoint.input["num_frames"] == 4
    assert checkpoint.input["resize"] == 20
    wider = read_checkpoint(tmp_path, num_frames=8, image_size=(16, 32))
    assert wider.config["image_size"] == (16, 32)
    assert wider.state["encoder.pos_embed"].shape[1] == 1 + 4 * 2 * 4
    assert wider.input is not None
    assert (wider.input["num_frames"], wider.input["image_size"]) == (8, (16, 32))


def test_placeholder_labels_are_no_labels(tmp_path: Path) -> None:
    save(tmp_path)
    assert read_checkpoint(tmp_path).labels is None


@torch.no_grad()
def test_other_ways_to_store_the_same_folder(tmp_path: Path) -> None:
    """Shards, pytorch_model.bin, and the weights file named instead of the folder."""
    model = save(tmp_path / "one")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").is_file()
    (tmp_path / "bin").mkdir()
    shutil.copyfile(tmp_path / "one" / "config.json", tmp_path / "bin" / "config.json")
    from safetensors.torch import load_file

    torch.save(load_file(tmp_path / "one" / "model.safetensors"), tmp_path / "bin" / "pytorch_model.bin")
    wanted = load_checkpoint(tmp_path / "one").state_dict()
    for path in ("shards", "bin", "one/model.safetensors", "bin/pytorch_model.bin"):
        found = load_checkpoint(tmp_path / path).state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "prelu"}, "hidden_act 'prelu' has trained weights of its own"),
        ({"hidden_act": "gleu"}, "unknown hidden_act 'gleu'"),
        ({"hidden_act": ["gelu"]}, "unknown hidden_act"),
        ({"num_attention_heads": 5}, "5 heads cannot share 24"),
        ({"num_attention_heads": "many"}, "num_attention_heads is 'many'"),
        ({"num_attention_heads": 1e300}, "not a number in range"),
        ({"layer_norm_eps": None}, "layer_norm_eps is None"),
        ({"num_frames": 8}, "8 frames of 16×16 make 16 tokens"),
        ({"image_size": [16]}, "are not valid sizes"),
        ({"num_frames": "four"}, "are not valid sizes"),
        ({"tubelet_size": [2, 4, 16]}, "but the projection has"),
        ({"model_type": "bert"}, "no known checkpoint format"),
    ],
)
def test_damaged_configurations(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(tmp_path)


def test_wrong_tensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    lacking = {name: tensor for name, tensor in tensors.items() if "1.layernorm_after.bias" not in name}
    save_file({**lacking, "vivit.extra.weight": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path)
    assert "1 missing (vivit.encoder.layer.1.layernorm_after.bias)" in str(caught.value)
    assert "1 unexpected (vivit.extra.weight)" in str(caught.value)
    save_file({name: tensor for name, tensor in tensors.items() if "classifier" not in name}, file)
    with pytest.raises(CheckpointError, match="has no classifier"):
        load_checkpoint(tmp_path)
    save(tmp_path)
    with pytest.raises(CheckpointError, match="holds vivit-st, not vivit-fe"):
        load_checkpoint(tmp_path, "vivit-fe")
