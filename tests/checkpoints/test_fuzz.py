"""Random and mutated files of every container, and random values beside the weights: one error, never anything else."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.checkpoints.hostile_files import CONTAINERS, PROTO, text
from tests.checkpoints.test_readers import npy, write_npz, written
from vidcls.checkpoints import load_checkpoint, open_raw
from vidcls.config import InputSpec
from vidcls.errors import VidclsError
from vidcls.models import build
from vidcls.views.hf_preprocessor import input_from_preprocessor

# The same examples in each run, so that a change is to blame for a failure; a minute in all.
fuzz = settings(
    max_examples=120,
    deadline=5000,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

KINDS = ("npz", "msgpack", "safetensors", "torch", "legacy")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([-1, 0, 2**31, 2**64, 10**400, 1e308, float("nan"), "F32", "float32", "\x1b[31m"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def survives(path: Path, load: Any = load_checkpoint) -> None:
    """Loading ends well or in one line of ours."""
    try:
        load(path)
    except VidclsError as error:
        said = str(error)
    else:
        said = ""
    assert "\n" not in said
    assert "weights_only" not in said


@pytest.mark.parametrize("kind", KINDS)
@fuzz
@given(data=st.data())
def test_m3_mutated_checkpoints(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(written(kind))
    for _ in range(data.draw(st.integers(1, 6))):
        # Headers and directories lie at the two ends.
        near = data.draw(
            st.integers(0, min(len(content), 1200) - 1) | st.integers(-min(len(content), 600), -1)
        )
        change = data.draw(st.sampled_from(("set", "cut", "insert", "double")))
        if change == "set":
            content[near] = data.draw(st.integers(0, 255))
        elif change == "cut":
            del content[near : near + data.draw(st.integers(1, 64)) if near >= 0 else None]
        elif change == "insert":
            content[near:near] = data.draw(st.binary(max_size=16))
        else:
            content[near:near] = content[max(near - 40, 0) : near] if near >= 0 else content[near:]
        if not content:
            break
    (tmp_path / "model").write_bytes(content)
    survives(tmp_path / "model")


PICKLED = st.one_of(
    st.sampled_from([bytes([c]) for c in b"NRQb(tseau)]}0\x81\x85\x86\x87\x88\x89."]),
    st.sampled_from(
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"ccollections\nOrderedDict\n",
            b"cargparse\nNamespace\n",
            b"c_codecs\nencode\n",
            b"ctorch\nFloatStorage\n",
            b"ctorch\nSize\n",
            b"cos\nsystem\n",
            text("storage"),
            text("0"),
            text("latin1"),
            b"K\x01",
            b"M\x00\x01",
            b"J\xff\xff\xff\x7f",
            b"q\x00",
            b"h\x00",
            b"\x8a\x08" + b"\xff" * 8,
            b"G\x7f\xf0\x00\x00\x00\x00\x00\x00",
            b"X\xff\xff\xff\xff",
        ]
    ),
    st.binary(max_size=3),
)


@pytest.mark.parametrize("container", CONTAINERS)
@fuzz
@given(pieces=st.lists(PICKLED, max_size=40))
def test_m3_random_pickles(container: str, pieces: list[bytes], tmp_path: Path) -> None:
    path = CONTAINERS[container](tmp_path / "model", PROTO + b"".join(pieces) + b".")
    survives(path, open_raw)


@fuzz
@given(header=st.dictionaries(st.text(max_size=8), VALUES, max_size=6), tail=st.binary(max_size=64))
def test_m3_random_headers_of_safetensors(header: dict[str, Any], tail: bytes, tmp_path: Path) -> None:
    text_of = json.dumps(header).encode()
    (tmp_path / "model").write_bytes(struct.pack("<Q", len(text_of)) + text_of + tail)
    survives(tmp_path / "model")


@fuzz
@given(
    record=st.fixed_dictionaries(
        {"version": st.just(1) | SCALARS, "architecture": st.sampled_from(["vivit-st", "vtn", "videomae"])},
        optional={
            "config": st.dictionaries(
                st.sampled_from(
                    ["depth", "embed_dim", "num_heads", "image_size", "num_frames", "backbone", "pool"]
                ),
                VALUES,
                max_size=5,
            )
            | VALUES,
            "labels": VALUES,
            "input": VALUES,
            "extra": VALUES,
        },
    )
)
def test_m3_random_metadata_of_our_own(record: dict[str, Any], tmp_path: Path) -> None:
    save_file({"head.bias": torch.zeros(3)}, tmp_path / "model", {"vidcls": json.dumps(record)})
    survives(tmp_path / "model")


@fuzz
@given(tree=VALUES, code=st.integers(0, 127), payload=st.binary(max_size=40))
def test_m3_random_msgpack(tree: Any, code: int, payload: bytes, tmp_path: Path) -> None:
    with contextlib.suppress(OverflowError):  # an integer of more than 64 bits cannot be written
        packed = msgpack.packb(
            {"params": {"w": msgpack.ExtType(code, payload), "t": tree}}, use_bin_type=True
        )
        (tmp_path / "model").write_bytes(packed)
        survives(tmp_path / "model")


@fuzz
@given(
    shape=st.lists(st.integers(-2, 2**64), max_size=4),
    descr=st.sampled_from(["<f4", ">f8", "|u1", "<U3", "|O", "V2", "<c8", "", "x"]) | st.text(max_size=5),
    order=st.booleans(),
    content=st.binary(max_size=32),
)
def test_m3_random_headers_of_npz(
    shape: list[int], descr: str, order: bool, content: bytes, tmp_path: Path
) -> None:
    header = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {tuple(shape)}}}"
    member = npy(header, content) if len(header.encode()) < 117 else content
    survives(write_npz(tmp_path / "model", {"w.npy": member}))


PROCESSOR_KEYS = (
    "image_processor_type video_processor_type do_resize size do_center_crop crop_size do_rescale rescale_factor "
    "do_normalize image_mean image_std resample offset video_processor image_processor"
).split()
GOOD = {
    "image_processor_type": "VideoMAEImageProcessor",
    "size": {"shortest_edge": 32},
    "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


@fuzz
@given(
    changes=st.dictionaries(st.sampled_from(PROCESSOR_KEYS), VALUES, max_size=4),
    config=st.dictionaries(st.sampled_from(["num_frames", "image_size", "model_type"]), VALUES, max_size=3),
)
def test_m3_random_preprocessors(changes: dict[str, Any], config: dict[str, Any]) -> None:
    with contextlib.suppress(VidclsError):
        fields = input_from_preprocessor({"model_type": "vivit", **config}, {**GOOD, **changes})
        InputSpec(**fields)  # what was read is what a model can be fed by


CONFIG_KEYS = (
    "architecture num_classes model_args pretrained_cfg label_names label_descriptions model_type image_size "
    "num_attention_heads id2label hidden_act layer_norm_eps"
).split()
CFG_KEYS = "input_size mean std interpolation crop_pct crop_mode num_classes".split()


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    state = build(
        "vit-frames", image_size=16, patch_size=8, embed_dim=64, depth=1, num_heads=1, num_classes=2
    )
    save_file(
        {k.removeprefix("backbone."): t for k, t in state.state_dict().items()}, folder / "model.safetensors"
    )
    return folder


@fuzz
@given(
    config=st.dictionaries(st.sampled_from(CONFIG_KEYS), VALUES, max_size=5),
    cfg=st.dictionaries(st.sampled_from(CFG_KEYS), VALUES, max_size=4),
    model_type=st.sampled_from([None, "vit", "vivit", "timesformer", "videomae", "vjepa2"]),
)
def test_m3_random_configurations_beside_good_weights(
    config: dict[str, Any], cfg: dict[str, Any], model_type: str | None, vit_folder: Path
) -> None:
    kind = (
        {"architecture": "vit", "pretrained_cfg": cfg} if model_type is None else {"model_type": model_type}
    )
    (vit_folder / "config.json").write_text(json.dumps({**kind, **config}))
    survives(vit_folder)
