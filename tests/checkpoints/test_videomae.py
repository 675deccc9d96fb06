"""VideoMAE: transformers' folders against transformers, and the authors' files by the same weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.checkpoints.hf_config import ACTIVATIONS
from vidcls.checkpoints.kinetics import kinetics400_rows
from vidcls.errors import CheckpointError, ConfigError
from vidcls.models import build
from vidcls.models.videomae import sinusoid_table
from vidcls.zoo.find import CheckpointKeywords, find_model
from vidcls.zoo.labels import load_labels

transformers = pytest.importorskip("transformers", minversion="5.24", reason="the reference")

SMALL: dict[str, Any] = {
    "image_size": 24,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "num_labels": 5,
    "layer_norm_eps": 1e-12,
}


def reference(**changes: Any) -> Any:
    """A model of transformers, in float64, no parameter of which is at a value that would hide anything."""
    torch.manual_seed(0)
    model = (
        transformers.VideoMAEForVideoClassification(transformers.VideoMAEConfig(**{**SMALL, **changes}))
        .eval()
        .double()
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def agree(ours: Any, theirs: Any, size: tuple[int, ...] = (2, 3, 4, 24, 24)) -> None:
    views = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(views.transpose(1, 2)).logits
        torch.testing.assert_close(ours.double()(views), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, (2, 3, 4, 24, 24)),
        ({"use_mean_pooling": False}, (2, 3, 4, 24, 24)),
        ({"qv_bias": False}, (2, 3, 4, 24, 24)),
        ({"layer_norm_eps": 1e-3}, (2, 3, 4, 24, 24)),
        ({"use_mean_pooling": False, "layer_norm_eps": 1e-3}, (2, 3, 4, 24, 24)),
        *[({"hidden_act": name}, (2, 3, 4, 24, 24)) for name in ACTIVATIONS],
        (
            {"image_size": [16, 32], "patch_size": [8, 16], "num_frames": 6, "tubelet_size": 3},
            (1, 3, 6, 16, 32),
        ),
        ({"num_channels": 1, "tubelet_size": 1}, (1, 1, 4, 24, 24)),
    ],
)
def test_folders_compute_what_transformers_does(
    tmp_path: Path, changes: dict[str, Any], size: tuple[int, ...]
) -> None:
    theirs = reference(**changes).float()
    theirs.save_pretrained(tmp_path)
    agree(load_checkpoint(tmp_path), theirs.double(), size)


@pytest.mark.parametrize("spelling", ["q_bias", "query.bias"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_both_spellings_of_the_biases(tmp_path: Path, spelling: str, file: str) -> None:
    theirs = reference().float()
    theirs.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = {"query.bias": "q_bias", "value.bias": "v_bias"}
    if spelling == "query.bias":
        names = {short: long for long, short in names.items()}
    renamed = {}
    for name, tensor in stored.items():
        end = next((old for old in names if name.endswith(old)), None)
        renamed[name if end is None else name.removesuffix(end) + names[end]] = tensor
        if end == "q_bias":  # and transformers 5.17 gives the keys one
            renamed[name.removesuffix(end) + "key.bias"] = torch.randn_like(tensor)
    assert any(name.endswith(spelling) for name in renamed)
    if file.endswith(".bin"):
        torch.save(renamed, tmp_path / file)
    else:
        save_file(renamed, tmp_path / file)
    agree(load_checkpoint(tmp_path), theirs.double())


def test_a_folder_tells_labels_and_preprocessing(tmp_path: Path) -> None:
    reference(id2label={i: f"action {i}" for i in range(5)}).float().save_pretrained(tmp_path)
    processor = {
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": 24},
        "crop_size": 24,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    read = read_checkpoint(tmp_path)
    assert read.labels == tuple(f"action {i}" for i in range(5))
    assert read.input is not None
    assert (read.input["num_frames"], read.input["resize"], read.input["image_size"]) == (4, 24, (24, 24))
    # Three crops are the model's entry's to say: published figures are measured with them.
    assert "num_crops" not in read.input


def test_other_sizes_are_another_table(tmp_path: Path) -> None:
    theirs = reference().float()
    theirs.save_pretrained(tmp_path)
    ours = load_checkpoint(tmp_path, num_frames=8, image_size=(16, 24))
    larger = reference(num_frames=8, image_size=[16, 24]).float()
    larger.load_state_dict(theirs.state_dict())
    agree(ours, larger.double(), (2, 3, 8, 16, 24))
    with pytest.raises(ConfigError, match=r"got views of \(4, 24, 24\) .* built for \(8, 16, 24\)"):
        ours(torch.zeros(1, 3, 4, 24, 24, dtype=torch.float64))


def small_of_transformers(tmp_path: Path, heads: int) -> Path:
    reference(hidden_size=384, num_attention_heads=heads, num_hidden_layers=1).float().save_pretrained(
        tmp_path
    )
    return tmp_path


def test_the_small_model_of_the_hub_has_other_heads_than_the_authors(tmp_path: Path) -> None:
    folder = small_of_transformers(tmp_path, 16)
    read = read_checkpoint(folder)
    assert read.config["num_heads"] == 16
    assert any("16 heads" in note and "has 6" in note for note in read.notes)
    assert read_checkpoint(folder, num_heads=6).config["num_heads"] == 6
    assert any("6 were asked for" in note for note in read_checkpoint(folder, num_heads=6).notes)
    assert not any("heads" in note for note in read_checkpoint(small_of_transformers(tmp_path, 6)).notes)


REFUSED: list[tuple[Callable[[dict[str, Any], dict[str, Tensor]], object], str]] = [
    (lambda config, tensors: config.update(model_type="VideoMAEv2_Base"), "encoder with code of its own"),
    (lambda config, tensors: tensors.pop("classifier.weight"), "has no classifier"),
    (lambda config, tensors: tensors.pop("videomae.encoder.layer.1.output.dense.weight"), "1 missing"),
    (
        lambda config, tensors: tensors.update({"videomae.encoder.layer.0.extra": torch.ones(1)}),
        "1 unexpected",
    ),
    (
        lambda config, tensors: config.update(hidden_act="prelu"),
        "hidden_act 'prelu' has trained weights of its own",
    ),
    (lambda config, tensors: config.update(num_attention_heads=2.5), "not a whole number"),
    (lambda config, tensors: config.update(image_size=[24]), "image_size"),
]


@pytest.mark.parametrize(("change", "problem"), REFUSED)
def test_what_is_wrong_with_a_folder(tmp_path: Path, change: Any, problem: str) -> None:
    reference().float().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    tensors = load_file(tmp_path / "model.safetensors")
    change(config, tensors)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=problem):
        load_checkpoint(tmp_path)


def test_a_pretrained_folder_is_told_from_a_classifier(tmp_path: Path) -> None:
    transformers.VideoMAEForPreTraining(
        transformers.VideoMAEConfig(**SMALL, decoder_hidden_size=24)
    ).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="has no classifier"):
        load_checkpoint(tmp_path)


# The authors' files


def authors(width: int = 48, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = {"image_size": 16, "num_frames": 4, "tubelet_size": (2, 8, 8), "num_classes": 5, "depth": 2}
    model = build("videomae", **{**config, "embed_dim": width, "num_heads": 3, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("outer", ["model", "module", ""])
@pytest.mark.parametrize("inner", ["", "module."])
def test_wrappings_of_the_authors(tmp_path: Path, outer: str, inner: str) -> None:
    model = authors()
    state = {inner + name: tensor for name, tensor in model.state_dict().items()}
    other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    content = {outer: state, "epoch": 3, "model_ema": other} if outer else state
    torch.save(content, tmp_path / "file.pth")
    loaded: Any = load_checkpoint(tmp_path / "file.pth", num_heads=3)
    views = torch.randn(1, 3, 4, 16, 16)
    assert torch.equal(loaded(views), model(views))
    assert loaded.config.any_size  # the file does not say what size its views have
    longer = torch.randn(1, 3, 6, 24, 16)
    resized = authors(num_frames=6, image_size=(24, 16))
    torch.testing.assert_close(loaded(longer), resized(longer))


def test_half_precision_files_run_in_float32(tmp_path: Path) -> None:
    model = authors(tubelet_size=(2, 14, 14), image_size=28, num_classes=710)
    half = {name: tensor.half() for name, tensor in model.state_dict().items()}
    torch.save({"module": half}, tmp_path / "half.pth")
    loaded: Any = load_checkpoint(tmp_path / "half.pth", num_heads=3, image_size=28, num_frames=4)
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())
    assert loaded.config.tubelet_size == (2, 14, 14)
    model.load_state_dict({name: tensor.float() for name, tensor in half.items()})
    views = torch.randn(1, 3, 4, 28, 28)
    assert torch.equal(loaded(views), model(views))


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (768, 12), (1024, 16), (1280, 16), (1408, 16)])
def test_heads_by_the_authors_table(tmp_path: Path, width: int, heads: int) -> None:
    with torch.device("meta"):
        state = build("videomae", embed_dim=width, depth=1, num_heads=heads, num_classes=5).state_dict()
    torch.save(
        {"model": {k: torch.zeros(t.shape, dtype=torch.float16) for k, t in state.items()}}, tmp_path / "f"
    )
    read = read_checkpoint(tmp_path / "f")
    assert read.config["num_heads"] == heads
    assert f"its {width} channels make; {heads} are assumed" in read.notes[0]
    assert read_checkpoint(tmp_path / "f", num_heads=4).notes == ()


def test_protocol_by_the_number_of_classes(tmp_path: Path) -> None:
    for classes, rule, num_views in ((174, "videomae-sparse", 2), (400, "videomae", 5)):
        torch.save(authors(num_classes=classes).state_dict(), tmp_path / "f.pth")
        seen = read_checkpoint(tmp_path / "f.pth", num_heads=3).input
        assert seen is not None
        assert (seen["sampling"], seen["num_views"], seen["num_crops"]) == (rule, num_views, 3)
        assert (seen["average"], seen["resize_rule"]) == ("probs", "opencv")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda state: state.update({"blocks.0.attn.scale": torch.ones(3, 1, 1)}), "cosine attention"),
        (lambda state: state.pop("head.weight"), "head.weight"),
        (
            lambda state: state.update({"blocks.0.gamma_1": torch.ones(48)}),
            r"1 unexpected \(blocks.0.gamma_1\)",
        ),
        (lambda state: state.pop("blocks.1.norm1.weight"), r"1 missing \(blocks.1.norm1.weight\)"),
    ],
)
def test_what_is_wrong_with_an_authors_file(tmp_path: Path, change: Any, problem: str) -> None:
    state = authors().state_dict()
    change(state)
    torch.save({"model": state}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=problem):
        load_checkpoint(tmp_path / "file.pth", num_heads=3)


def test_unknown_width_asks_for_heads(tmp_path: Path) -> None:
    torch.save({"model": authors().state_dict()}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="48 channels"):
        load_checkpoint(tmp_path / "file.pth")


def test_pretrained_file_is_refused(tmp_path: Path) -> None:
    state = {
        f"encoder.{name}": t for name, t in authors().state_dict().items() if not name.startswith("head.")
    }
    torch.save({"model": state}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"has no classifier.*init-from"):
        load_checkpoint(tmp_path / "file.pth", num_heads=3)


def test_position_table_is_that_of_the_paper() -> None:
    table = sinusoid_table(50, 8)
    assert table.dtype == torch.float32
    for p, j in ((0, 0), (3, 0), (3, 1), (49, 6), (49, 7)):
        angle = torch.tensor(p / 10000 ** (2 * (j // 2) / 8), dtype=torch.float64)
        assert table[0, p, j] == (angle.sin() if j % 2 == 0 else angle.cos()).float()
    assert torch.equal(sinusoid_table(9, 8), table[:, :9])


# Kinetics-400 out of Kinetics-710


def kinetics710(tmp_path: Path) -> Path:
    """An authors' file of 710 classes in half precision, as the distilled models are saved."""
    state = {name: tensor.half() for name, tensor in authors(num_classes=710).state_dict().items()}
    torch.save({"module": state}, tmp_path / "k710.pth")
    return tmp_path / "k710.pth"


def test_kinetics_400_is_a_selection_of_710_rows(tmp_path: Path) -> None:
    file = kinetics710(tmp_path)
    whole: Any = load_checkpoint(file, num_heads=3)
    part: Any = load_checkpoint(file, num_heads=3, num_classes=400)
    views = torch.randn(1, 3, 4, 16, 16)
    rows = kinetics400_rows()
    assert part.num_classes == part.config.num_classes == 400
    torch.testing.assert_close(part(views), whole(views)[:, rows])
    read = read_checkpoint(file, num_heads=3, num_classes=400)
    assert read.labels == load_labels("kinetics400")
    assert "selected from Kinetics-710" in read.notes[-1]
    with pytest.raises(CheckpointError, match="has num_classes 710, but num_classes=600 was given"):
        load_checkpoint(file, num_heads=3, num_classes=600)


def test_rows_are_those_of_the_authors_map() -> None:
    rows, names = kinetics400_rows(), load_labels("kinetics710")
    assert len(set(rows)) == 400
    assert rows[:10] == [341, 158, 189, 16, 398, 302, 202, 318, 80, 323]  # misc/ of OpenGVLab/VideoMAEv2
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == "e2b35a012f378f1b"
    assert [names[row] for row in rows][12] == "inflating balloons"  # balloon blowing


def test_an_entry_of_kinetics_400_selects_its_rows(tmp_path: Path) -> None:
    file = kinetics710(tmp_path)
    keywords = CheckpointKeywords(config={"num_heads": 3})
    for name, classes in (("videomae2-s-k400", 400), ("videomae2-s-k710", 710)):
        facts = find_model(name, weights=file, keywords=keywords, offline=True).facts
        assert facts.num_classes == classes
        assert facts.spec.labels == f"kinetics{classes}"
