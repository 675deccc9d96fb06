"""Configurations and files that claim more than a model has or a machine holds: refused in one line, soon and small."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.hostile_files import safetensors_of_many_tensors
from tests.checkpoints.test_beside_the_weights import FAMILIES, change_config, hf_folder
from tests.checkpoints.vivit_files import packed
from tests.models.test_all_architectures import CONFIGS, SIZE, every_architecture, tiny
from vidcls.checkpoints import load_checkpoint, open_raw, save_checkpoint
from vidcls.errors import VidclsError
from vidcls.models import build, config_keys
from vidcls.models.limits import memory

HUGE = (2**31 - 1, 10**12, 10**300, 10**4000)


def refused(call: Callable[[], object], seconds: float = 8.0) -> str:
    """Calling ends soon in one readable line, without taking memory."""
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(VidclsError) as caught:
            call()
        assert tracemalloc.get_traced_memory()[1] < 300e6
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < seconds
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


@every_architecture
@pytest.mark.parametrize("number", HUGE, ids=lambda n: f"{n.bit_length()} bits")
def test_i13_2_an_architecture_of_absurd_sizes(architecture: str, number: int) -> None:
    for key in sorted(config_keys(architecture) & {
        "depth", "temporal_depth", "embed_dim", "num_frames", "num_classes", "image_size", "max_positions", "width"
    }):  # fmt: skip
        config = {**CONFIGS[architecture], key: number}
        assert key in refused(lambda config=config: build(architecture, **config))


def test_i13_2_sizes_that_are_each_possible_but_not_together() -> None:
    large = {"depth": 400, "embed_dim": 2**15, "num_heads": 8}
    text = refused(lambda: build("vivit-st", **large))
    assert f"{memory() / 2**30:,.0f}" in text
    views = {"image_size": 8192, "num_frames": 65536}
    assert "too many tokens" in refused(lambda: build("videomae", **views))
    with torch.device("meta"):  # where nothing is allocated, a size may be as large as any model's
        build("vivit-st", depth=1, embed_dim=2**15, num_heads=8)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("number", HUGE[:3], ids=lambda n: f"{n.bit_length()} bits")
def test_i13_2_a_complete_folder_with_an_absurd_configuration(
    family: str, number: int, tmp_path: Path
) -> None:
    hf_folder(tmp_path, family)
    original = (tmp_path / "config.json").read_text()
    keys = ("num_frames", "image_size", "num_attention_heads", "patch_size", "tubelet_size", "num_channels")
    for key in (*keys, "hidden_size", "num_hidden_layers", "num_labels", "intermediate_size"):
        (tmp_path / "config.json").write_text(original)
        if key not in json.loads(original):
            continue
        change_config(tmp_path, **{key: number})
        start = time.perf_counter()
        # What the tensors tell is not read from the configuration, and the rest of it is then no matter.
        said, parameters = outcome(tmp_path)
        assert "\n" not in said
        assert parameters < 100_000
        assert time.perf_counter() - start < 8


def outcome(path: Path) -> tuple[str, int]:
    """What loading ends in: an error's text, or the number of the model's parameters."""
    try:
        return "", sum(parameter.numel() for parameter in load_checkpoint(path).parameters())
    except VidclsError as error:
        return str(error), 0


@every_architecture
def test_i13_2_our_own_file_with_absurd_metadata(architecture: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(tiny(architecture), path, input={"image_size": SIZE, "num_frames": 4})
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["vidcls"])
    tensors = load_file(path)
    for key, value in record["config"].items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        changed = {**record, "config": {**record["config"], key: 2**31}}
        save_file(tensors, path, {"vidcls": json.dumps(changed)})
        refused(lambda: load_checkpoint(path))


def test_i13_2_many_tensors_over_the_same_bytes(tmp_path: Path) -> None:
    shared = torch.zeros(1 << 20)
    torch.save({f"layer{number}": shared for number in range(1000)}, tmp_path / "model.pth")
    assert "claim 3.9 GiB over 4194304 bytes" in refused(lambda: open_raw(tmp_path / "model.pth"))


def test_i13_3_msgpack_of_many_small_maps(tmp_path: Path) -> None:
    tree: dict[str, Any] = {f"m{number}": {"a": number} for number in range(64_000)}
    tree["w"] = packed(np.ones(2, np.float32))
    (tmp_path / "checkpoint").write_bytes(msgpack.packb(tree))
    start = time.perf_counter()
    assert list(open_raw(tmp_path / "checkpoint").tensors) == ["w"]
    assert time.perf_counter() - start < 8


def test_i13_3_msgpack_of_many_chunked_arrays(tmp_path: Path) -> None:
    leaf = packed(np.ones(1, np.float32))
    chunked = {"__msgpack_chunked_array__": True, "shape": {"0": 1}, "chunks": {"0": leaf}}
    (tmp_path / "checkpoint").write_bytes(msgpack.packb({f"m{number}": chunked for number in range(20_000)}))
    start = time.perf_counter()
    assert len(open_raw(tmp_path / "checkpoint").tensors) == 20_000
    assert time.perf_counter() - start < 8


def test_i13_3_names_below_a_chain_of_long_keys(tmp_path: Path) -> None:
    """A prefix that is written once would be copied into the name of each entry below it."""
    tree: Any = {f"k{number}": number for number in range(50_000)}
    for _ in range(25):
        tree = {"x" * 500: tree}
    (tmp_path / "checkpoint").write_bytes(msgpack.packb(tree))
    assert "too large or too deep" in refused(lambda: open_raw(tmp_path / "checkpoint"))
    torch_tree: Any = {f"k{number}": torch.zeros(1) if number == 0 else number for number in range(10_000)}
    for _ in range(25):
        torch_tree = {"x" * 500: torch_tree}
    torch.save(torch_tree, tmp_path / "model.pth")
    assert "too large or too deep" in refused(lambda: open_raw(tmp_path / "model.pth"))


def test_i13_3_safetensors_of_very_many_tensors(tmp_path: Path) -> None:
    path = safetensors_of_many_tensors(tmp_path / "model.safetensors")
    assert "more than 100,000 tensors" in refused(lambda: open_raw(path))
