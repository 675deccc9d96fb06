"""Every option of `vidcls train` either acts on a probe, or is refused with a sentence."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vidcls.cli.app import app
from vidcls.cli.groups import expand
from vidcls.cli.train import train
from vidcls.cli.train_options import DataOptions, OptimizationOptions, ProbeOptions, RunOptions
from vidcls.errors import UsageError
from vidcls.training.probe import run
from vidcls.training.probe.keys import check_keys
from vidcls.training.recipe import Recipe

pytest.importorskip("sklearn")

BOTH = {
    "data", "val", "videos", "labels", "labels_format", "delimiter", "multi_label", "skip_missing", "directions_matter",
    "flip", "init_from", "class_weights", "seed", "workers", "probe", "probe_kind", "num_views", "folds", "config",
    "settings", "check", "device",
}  # fmt: skip
ACTS = {"linear": BOTH, "attentive": BOTH | {"epochs", "lr", "batch_size", "cache_tokens"}}
VALUES = {
    "data": ["clips"], "val": ["none"], "videos": ["."], "labels": ["x"], "labels_format": ["csv"], "delimiter": [","],
    "init_from": ["x.pt"], "class_weights": ["balanced"], "best": ["loss"], "config": ["recipe.yaml"],
    "settings": ["seed=1"], "device": ["cpu"], "tracker": ["wandb"], "precision": ["bf16"], "sampler": ["balanced"],
    "freeze": ["2"], "layer_decay": ["0.5"], "lr": ["0.1"], "probe_kind": ["linear"],
}  # fmt: skip
FIELDS = [
    (field.name, "bool" in str(field.type))
    for group in (DataOptions, OptimizationOptions, ProbeOptions, RunOptions)
    for field in fields(group)
]


class ReachedError(UsageError):
    """The options were accepted."""


@pytest.mark.parametrize("kind", ACTS)
@pytest.mark.parametrize(("name", "switch"), FIELDS, ids=[name for name, _ in FIELDS])
def test_each_option_acts_or_is_refused(
    kind: str, name: str, switch: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reach(*arguments: Any) -> Any:
        raise ReachedError("reached", "accepted", "nothing")

    monkeypatch.setattr(run, "_embedder", reach)
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("seed: 3\n")
    flag = expand(train)[1].names[name]
    given = [] if name in ("probe", "probe_kind") else [flag, *([] if switch else VALUES.get(name, ["2"]))]
    clips = [] if name == "data" else ["clips"]
    done = CliRunner().invoke(
        app, ["train", *clips, "--probe", "--probe-kind", kind, *given, "-o", str(tmp_path / "run")]
    )
    assert done.exit_code == 2, done.output
    if name in ACTS[kind]:
        assert "reached: accepted" in done.stderr
    else:
        assert "reached" not in done.stderr
        assert done.stderr.startswith(f"vidcls: {flag}: "), done.stderr
        assert ";" in done.stderr  # what to do instead
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("attentive", [False, True])
def test_each_key_of_a_recipe_is_known(attentive: bool) -> None:
    """Also what no option sets, as in a recipe that was made for training."""
    refused = []
    for key in Recipe.model_fields:
        recipe = Recipe.model_construct(_fields_set={key, "attentive"}, attentive=attentive)
        with contextlib.suppress(UsageError):
            check_keys(recipe)
            continue
        refused.append(key)
    assert {"lora", "freeze", "mixup", "sampler", "precision", "patience", "frame_cache"} <= set(refused)
    assert ("ema" in refused) != attentive
    with pytest.raises(UsageError, match=r"augment.color: a probe learns from the same views"):
        check_keys(Recipe.model_validate({"augment": {"color": {}}, "attentive": attentive}))
    with pytest.raises(UsageError, match="random weights have learned nothing"):
        check_keys(Recipe.model_validate({"init": {"from": "none"}, "attentive": attentive}))
