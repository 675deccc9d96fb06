"""Image ViTs of timm, Google, scenic and HF through the real loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.conftest import GOLDENS, golden_dirs
from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.errors import CheckpointError
from vidcls.models.vit import ViTFrames

TOLERANCE = 2e-5
NPZ = GOLDENS / "vit-npz" / "model.npz"

# What a file's tensors leave open. scenic's copy in Google's names was run with scenic's GELU and without the
# pre_logits layer, which is not what Google's names stand for.
KEYWORDS: dict[str, dict[str, Any]] = {
    "model.pth": {"num_heads": 3},
    "model.safetensors": {"num_heads": 3},
    "vit_augreg_layout.npz": {"activation": "gelu_tanh", "representation_size": 0},
}
FORMAT_OF = {
    "vit-hf": "hf_vit",
    "vit-npz": "google_npz",
    "vit-timm": "timm_vit",
    "params.npz": "scenic_vit",
    "vit_augreg_layout.npz": "google_npz",
}


def golden_files() -> list[Path]:
    found = []
    for folder in golden_dirs("vit-*", "scenic-vit*"):
        if (folder / "config.json").is_file():
            found.append(folder)
        else:
            found += [
                f
                for f in sorted(folder.iterdir())
                if f.name != "io.npz" and f.suffix in (".npz", ".pth", ".safetensors")
            ]
    return found


def one_frame(images: np.ndarray[Any, Any], channels_last: bool = False) -> Tensor:
    """Images as views of one frame, (b, c, 1, h, w)."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy() if channels_last else images)[:, :, None]


@pytest.mark.parametrize("path", golden_files(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_goldens(path: Path) -> None:
    folder = path if path.is_dir() else path.parent
    # An HF folder knows its heads; its golden shows that nothing needs to be said.
    keywords = {} if path.is_dir() else KEYWORDS.get(path.name, {})
    case = json.loads((folder / "case.json").read_text())
    if "num_heads" in keywords:
        keywords = {**keywords, "num_heads": case["config"]["num_heads"]}
    family = "-".join(folder.name.split("-")[:2])
    assert read_checkpoint(path, **keywords).format == FORMAT_OF.get(family) or FORMAT_OF[path.name]

    model = load_checkpoint(path, **keywords)
    assert isinstance(model, ViTFrames)
    with np.load(folder / "io.npz") as io:
        views = one_frame(io["input"]) if "input" in io else one_frame(io["x"], channels_last=True)
        with torch.no_grad():
            assert np.abs(model(views).numpy() - io["logits"]).max() <= TOLERANCE
            if "features" in io:
                features = model.encode_frames(views)[:, 0].numpy()
                assert np.abs(features - io["features"]).max() <= TOLERANCE


def golden_io() -> tuple[Tensor, np.ndarray[Any, Any]]:
    with np.load(NPZ.parent / "io.npz") as io:
        return one_frame(io["input"]), io["logits"]


def golden_arrays() -> dict[str, np.ndarray[Any, Any]]:
    with np.load(NPZ) as file:
        return dict(file)


def golden_timm() -> dict[str, Tensor]:
    """The golden's weights under timm's names."""
    state = read_checkpoint(NPZ).state
    return {name.removeprefix("backbone."): tensor.contiguous() for name, tensor in state.items()}


@pytest.mark.parametrize("wrap", ["", "state_dict", "model", "module", "state_dict.module", "safetensors"])
def test_every_wrapping_of_timm(tmp_path: Path, wrap: str) -> None:
    tensors = golden_timm()
    path = tmp_path / "weights"
    if wrap == "safetensors":
        save_file(tensors, path)
    else:
        if "module" in wrap:
            tensors = {f"module.{name}": tensor for name, tensor in tensors.items()}
        outer = wrap.partition(".")[0]
        torch.save(tensors if outer in ("", "module") else {outer: tensors, "epoch": 3}, path)
    checkpoint = read_checkpoint(path, num_heads=3)
    assert checkpoint.format == "timm_vit"
    views, logits = golden_io()
    with torch.no_grad():
        assert np.abs(load_checkpoint(path, num_heads=3)(views).numpy() - logits).max() <= TOLERANCE


def scenic_names(arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    renames = (
        ("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0"),
        ("LayerNorm_2", "LayerNorm_1"),
        ("MlpBlock_3", "MlpBlock_0"),
        ("head/", "output_projection/"),
    )
    out = {}
    for name, array in arrays.items():
        for old, new in renames:
            name = name.replace(old, new)
        out[name] = array
    return out


@pytest.mark.parametrize("root", ["", "params/"])
def test_scenics_numbering_means_scenics_gelu(tmp_path: Path, root: str) -> None:
    path = tmp_path / "params.npz"
    np.savez(path, **{root + name: array for name, array in scenic_names(golden_arrays()).items()})
    checkpoint, google = read_checkpoint(path), read_checkpoint(NPZ)
    assert checkpoint.format == "scenic_vit"
    assert checkpoint.config == {**google.config, "activation": "gelu_tanh"}
    assert checkpoint.state.keys() == google.state.keys()
    assert all(torch.equal(tensor, google.state[name]) for name, tensor in checkpoint.state.items())
    views, logits = golden_io()
    with torch.no_grad():
        assert np.abs(load_checkpoint(path)(views).numpy() - logits).max() > TOLERANCE
        erf = load_checkpoint(path, activation="gelu")
        assert np.abs(erf(views).numpy() - logits).max() <= TOLERANCE


def test_without_a_class_token_patches_are_averaged(tmp_path: Path) -> None:
    arrays = scenic_names(golden_arrays())
    del arrays["cls"]
    name = "Transformer/posembed_input/pos_embedding"
    arrays[name] = arrays[name][:, 1:]
    np.savez(tmp_path / "params.npz", **arrays)
    model = load_checkpoint(tmp_path / "params.npz")
    assert model.config.pool == "gap"
    assert model(golden_io()[0]).shape == (2, 7)


@pytest.mark.parametrize("kind", ["npz", "timm"])
def test_pre_logits_are_used_unless_left_out(tmp_path: Path, kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(48, 48, generator=generator) / 7, torch.randn(48, generator=generator)
    path = tmp_path / "weights"
    heads: dict[str, Any] = {}
    if kind == "npz":
        arrays = {"pre_logits/kernel": weight.T.numpy(), "pre_logits/bias": bias.numpy()}
        with path.open("wb") as file:
            np.savez(file, **golden_arrays(), **arrays)
    else:
        heads = {"num_heads": 3}
        torch.save({**golden_timm(), "pre_logits.fc.weight": weight, "pre_logits.fc.bias": bias}, path)
    views, logits = golden_io()
    model, plain = load_checkpoint(path, **heads), load_checkpoint(path, representation_size=0, **heads)
    with np.load(NPZ.parent / "io.npz") as io, torch.no_grad():
        features = torch.from_numpy(io["features"])
        expected = model.head(torch.tanh(features @ weight.T + bias))
        assert (model(views) - expected).abs().max() <= TOLERANCE
        assert np.abs(plain(views).numpy() - logits).max() <= TOLERANCE


# --- position embeddings resized --------------------------------------------------------------------------------


def timm_model(size: tuple[int, int]) -> nn.Module:
    vision_transformer = pytest.importorskip("timm.models.vision_transformer")
    model: nn.Module = vision_transformer.VisionTransformer(
        img_size=size, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=7
    )
    return model.eval()


def image(size: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, 1, *size, generator=torch.Generator().manual_seed(5))


SIZES = [(16, 16), (24, 24), (48, 48), (40, 64), (16, 64)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["npz", "timm"])
def test_positions_are_resized_as_timm_does(tmp_path: Path, size: tuple[int, int], kind: str) -> None:
    theirs = timm_model(size)
    if kind == "npz":
        theirs.load_pretrained(str(NPZ))  # type: ignore[operator]
        ours = load_checkpoint(NPZ, image_size=size)
    else:
        from timm.models.vision_transformer import checkpoint_filter_fn

        theirs.load_state_dict(checkpoint_filter_fn(golden_timm(), theirs))
        torch.save(golden_timm(), tmp_path / "model.pth")
        ours = load_checkpoint(tmp_path / "model.pth", image_size=size, num_heads=3)
    views = image(size)
    with torch.no_grad():
        assert (ours(views) - theirs(views[:, :, 0])).abs().max() <= TOLERANCE


def test_each_publisher_resizes_in_its_own_way(tmp_path: Path) -> None:
    torch.save(golden_timm(), tmp_path / "model.pth")
    tables = [
        load_checkpoint(NPZ, image_size=16).backbone.pos_embed,
        load_checkpoint(tmp_path / "model.pth", image_size=16, num_heads=3).backbone.pos_embed,
    ]
    original = golden_timm()["pos_embed"]
    assert tables[0].shape == (1, 5, 48)
    assert all(torch.equal(table[:, 0], original[:, 0]) for table in tables)
    # Halving without antialias is the mean of 2 × 2 neighbors; with it, wider neighborhoods take part.
    halved = original[0, 1:].view(2, 2, 2, 2, 48).mean((1, 3)).view(4, 48)
    assert (tables[0][0, 1:] - halved).abs().max() < 1e-6
    assert (tables[1][0, 1:] - halved).abs().max() > 1e-3


# --- Hugging Face ------------------------------------------------------------------------------------------------


def save_hf(folder: Path, **changes: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "image_size": 32,
        "patch_size": 8,
        "num_labels": 5,
    }
    model: nn.Module = transformers.ViTForImageClassification(transformers.ViTConfig(**{**config, **changes}))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(folder)  # type: ignore[operator]
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layer_norm_eps": 1e-5},
        {"hidden_act": "gelu_new"},
        {"qkv_bias": False, "num_attention_heads": 2},
        {"patch_size": 16, "intermediate_size": 24},
        {"image_size": (16, 64)},
        {"image_size": (16, 24)},
    ],
)
def test_equals_transformers(tmp_path: Path, changes: dict[str, Any]) -> None:
    theirs = save_hf(tmp_path, **changes)
    ours = load_checkpoint(tmp_path)
    assert ours.config.norm_eps == changes.get("layer_norm_eps", 1e-12)
    views = image(changes.get("image_size", (32, 32)))
    with torch.no_grad():
        assert (ours(views) - theirs(views[:, :, 0]).logits).abs().max() <= TOLERANCE


@pytest.mark.parametrize("size", [(16, 16), (48, 48), (40, 64)])
def test_hf_positions_are_resized_as_transformers_does(tmp_path: Path, size: tuple[int, int]) -> None:
    theirs = save_hf(tmp_path)
    ours = load_checkpoint(tmp_path, image_size=size)
    views = image(size)
    with torch.no_grad():
        expected = theirs(views[:, :, 0], interpolate_pos_encoding=True).logits
        assert (ours(views) - expected).abs().max() <= TOLERANCE


def test_hf_folder_brings_labels_and_preprocessing(tmp_path: Path) -> None:
    save_hf(tmp_path, id2label={i: f"thing {i}" for i in range(5)})
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "do_resize": True, "do_rescale": True,
                    "do_normalize": True, "rescale_factor": 1 / 255, "resample": 2, **settings})
    )  # fmt: skip
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.labels == tuple(f"thing {i}" for i in range(5))
    assert checkpoint.input is not None
    assert tuple(checkpoint.input["image_size"]) == (32, 32)


def test_hf_placeholders_are_no_labels(tmp_path: Path) -> None:
    save_hf(tmp_path)
    assert read_checkpoint(tmp_path).labels is None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"hidden_act": "xielu"}, "hidden_act"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
    ],
)
def test_hf_configuration_that_cannot_be_is_said(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    save_hf(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **entry}))
    with pytest.raises(Exception, match=message) as caught:
        load_checkpoint(tmp_path)
    assert type(caught.value).__name__ in ("CheckpointError", "ConfigError")


def test_hf_without_a_classifier_can_be_read_but_not_run(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=3, image_size=32)
    bare = transformers.ViTModel(config)
    bare.save_pretrained(tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.notes[0] == "the file has no classifier (head)"
    assert torch.equal(checkpoint.state["backbone.norm.weight"], bare.state_dict()["layernorm.weight"])
    with pytest.raises(CheckpointError, match=r"2 missing \(head.weight, head.bias\)"):
        load_checkpoint(tmp_path)


# --- what does not fit -------------------------------------------------------------------------------------------


def broken(change: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if change == "missing":
        return {k: t for k, t in tensors.items() if k != "blocks.1.norm2.bias"}
    if change == "unexpected":
        return {**tensors, "blocks.0.ls1.gamma": torch.ones(48)}
    if change == "misshapen":
        return {**tensors, "norm.weight": torch.ones(47)}
    if change == "gap":
        return {
            k.replace("blocks.0.", "blocks.9.") if "attn.qkv" not in k else k: t for k, t in tensors.items()
        }
    if change == "headless":
        return {k: t for k, t in tensors.items() if not k.startswith("head.")}
    if change == "flat":
        return {**tensors, "patch_embed.proj.weight": torch.ones(48, 192)}
    return {**tensors, "pos_embed": torch.ones(1, 13, 48)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"1 missing \(backbone.blocks.1.norm2.bias\)"),
        ("unexpected", r"unexpected \(backbone.blocks.0.ls1.gamma\)"),
        ("misshapen", r"misshapen \(backbone.norm.weight: file \(47,\), model \(48,\)\)"),
        ("gap", "is missing"),
        ("headless", r"2 missing \(head.weight, head.bias\)"),
        ("flat", "shape"),
        ("places", "no square"),
    ],
)
def test_files_that_do_not_fit_say_why(tmp_path: Path, change: str, message: str) -> None:
    torch.save(broken(change, golden_timm()), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "model.pth", num_heads=3)


def test_positions_off_the_square_need_the_image_size(tmp_path: Path) -> None:
    table = torch.randn(1, 1 + 3 * 4, 48, generator=torch.Generator().manual_seed(0))
    torch.save({**golden_timm(), "pos_embed": table}, tmp_path / "model.pth")
    model = load_checkpoint(tmp_path / "model.pth", num_heads=3, image_size=(24, 32))
    assert torch.equal(model.backbone.pos_embed, table)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "give num_heads="),
        ({"num_heads": 3, "num_classes": 9}, "reset_head"),
        ({"num_heads": 3, "patch_size": 16}, "patch_size"),
        ({"num_heads": 3, "architecture": "vivit-st"}, "not vivit-st"),
        ({"num_heads": 3, "embed_dim": 64}, "embed_dim"),
    ],
)
def test_keywords_that_contradict_the_file_are_refused(
    tmp_path: Path, keywords: dict[str, Any], message: str
) -> None:
    torch.save(golden_timm(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "model.pth", **keywords)


def test_keywords_that_agree_with_the_file_are_taken() -> None:
    model = load_checkpoint(
        NPZ, "vit-frames", num_heads=3, num_classes=7, patch_size=8, image_size=32, num_frames=16, mlp_ratio=4
    )
    assert model.config.num_frames == 16
    with pytest.raises(CheckpointError, match="num_heads"):
        load_checkpoint(NPZ, num_heads=6)  # the kernels say three
