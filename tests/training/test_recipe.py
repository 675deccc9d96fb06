"""Recipes: the published hyperparameters, strict checking, schedules, parameter groups."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from vidcls.errors import ConfigError, UsageError
from vidcls.models import build
from vidcls.training import optim, setup
from vidcls.training.recipe import Optimizer
from vidcls.training.recipe_file import merge, parse_settings, plan_run, read_recipe, recipe_names
from vidcls.training.schedule import Schedule

TINY: dict[str, Any] = {
    "image_size": 16, "num_frames": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 3,
}  # fmt: skip


def test_shipped_recipes_are_these() -> None:
    wanted = "camera-motion camera-motion-further timesformer-k400 vivit-epic vivit-k400 vivit-ssv2 vtn-k400".split()
    assert recipe_names() == wanted


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_make_a_model(name: str) -> None:
    recipe = read_recipe(name)
    spec = setup.find_model(recipe)
    with torch.device("meta"):
        model = setup.build_model(spec, 10)
    assert model.num_classes == 10
    assert recipe.description
    assert spec.input.num_frames == recipe.input["num_frames"]


# name → (optimizer, lr, momentum, nesterov, weight decay, epochs, batch, smoothing, mixup, drop path, frames × stride)
PUBLISHED = {
    "vivit-k400": ("sgd", 0.05, 0.9, False, 0.0, 30, 64, 0.0, 0.0, 0.0, (32, 2)),
    "vivit-epic": ("sgd", 0.5, 0.9, False, 0.0, 50, 64, 0.2, 0.1, 0.2, (32, 1)),
    "vivit-ssv2": ("sgd", 0.4, 0.9, False, 0.0, 35, 64, 0.3, 0.3, 0.3, (32, 1)),
    "timesformer-k400": ("sgd", 0.005, 0.9, True, 1e-4, 15, 64, 0.0, 0.0, 0.1, (8, 32)),
    "vtn-k400": ("sgd", 0.001, 0.9, True, 1e-4, 25, 16, 0.0, 0.0, 0.0, (16, 8)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_hyperparameters(name: str) -> None:
    recipe = read_recipe(name)
    o, s = recipe.optimizer, recipe.schedule
    found = (
        o.name, o.lr, o.momentum, o.nesterov, o.weight_decay, s.epochs, recipe.batch_size, recipe.label_smoothing,
        recipe.mixup, recipe.config.get("drop_path_rate", 0.0), (recipe.input["num_frames"], recipe.input["stride"]),
    )  # fmt: skip
    assert found == PUBLISHED[name]
    assert recipe.clip_grad == (1.0 if name.startswith("vivit") else None)
    layers = recipe.augment.randaugment
    assert (layers and (layers.layers, layers.magnitude)) == {
        "vivit-epic": (2, 15),
        "vivit-ssv2": (2, 20),
    }.get(name)


def test_cosine_is_scenics() -> None:
    """lr = base · min(1, step / warmup) · ½ (1 + cos(π · max(0, step − warmup) / (total − warmup)))."""
    schedule, per_epoch = read_recipe("vivit-k400").schedule, 3356
    total, warmup = 100_680, 8390
    assert schedule.factor(0, per_epoch) == 0
    for step in (1, 4195, 8390, 50_000, total - 1):
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / (total - warmup)))
        assert schedule.factor(step, per_epoch) == pytest.approx(min(1, step / warmup) * cosine, rel=1e-9)


def test_steps_are_timesformers() -> None:
    schedule = read_recipe("timesformer-k400").schedule
    factors = [schedule.factor(step, 10) for step in (0, 109, 110, 139, 140, 149)]
    assert factors == [1, 1, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimzer: {lr: 1}", "optimzer: unknown key, did you mean 'optimizer'?"),
        ("optimizer: {learning: 1}", "optimizer.learning: unknown key"),
        ("schedule: {kind: cosin}", "schedule.kind"),
        ("input: {num_frame: 3}", "unknown key 'num_frame', did you mean 'num_frames'?"),
        ("schedule: {kind: steps, steps: [0, 3], factors: [1]}", "lists of the same length"),
        ("augment: {scale_jitter: [0.9, 1.1], short_side: [256, 320]}", "not both"),
        ("batch_size: 0", "batch_size"),
        ("base: nowhere", "no such recipe"),
        ("model: !!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_recipe(str(path))
    assert message in str(error.value)


def test_all_mistakes_are_named_together(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("seed: -1\nbatch_size: many\nfrezze: []\n")
    with pytest.raises(ConfigError, match=r"3 problems(.|\n)*seed(.|\n)*batch_size|3 problems"):
        read_recipe(str(path))


def test_a_recipe_builds_on_another(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("base: vivit-k400\noptimizer: {lr: 0.1}\n")
    (tmp_path / "above.yaml").write_text("base: below.yaml\nseed: 5\n")
    recipe = read_recipe(str(tmp_path / "above.yaml"), {"schedule": {"epochs": 3}})
    assert (recipe.optimizer.lr, recipe.optimizer.momentum, recipe.seed) == (0.1, 0.9, 5)
    assert (recipe.schedule.epochs, recipe.schedule.warmup_epochs) == (3, 2.5)
    (tmp_path / "below.yaml").write_text("base: above.yaml\n")
    with pytest.raises(ConfigError, match="its own base"):
        read_recipe(str(tmp_path / "above.yaml"))


def test_settings_are_nested_yaml() -> None:
    assert parse_settings(["a.b=1e-3", "a.c=[1, 2]", "d=x"]) == {"a": {"b": "1e-3", "c": [1, 2]}, "d": "x"}
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_settings(["epochs"])


def test_flags_win_over_the_file_and_settings_over_flags(tmp_path: Path) -> None:
    flags = {"optimizer": {"lr": 0.3, "layer_decay": None}, "seed": None, "batch_size": 8}
    recipe, resuming = plan_run(tmp_path / "run", "vivit-k400", flags, ["batch_size=4"], False)
    assert (recipe.optimizer.lr, recipe.optimizer.layer_decay, recipe.batch_size, resuming) == (
        0.3,
        1.0,
        4,
        False,
    )


def test_a_resumed_run_keeps_its_recipe(tmp_path: Path) -> None:
    from vidcls.training.recipe_file import recipe_text

    begun = read_recipe("vtn-k400")
    (tmp_path / "recipe.yaml").write_text(recipe_text(begun))
    assert plan_run(tmp_path, None, {}, [], True) == (begun, True)
    same, resuming = plan_run(tmp_path, "vtn-k400", {"workers": 3, "batch_size": 16}, [], True)
    assert (same.workers, resuming) == (3, True)
    with pytest.raises(UsageError, match="begun with another optimizer, batch_size"):
        plan_run(tmp_path, None, {"batch_size": 8, "optimizer": {"lr": 3}}, [], True)
    assert plan_run(tmp_path / "other", "vtn-k400", {}, [], True)[1] is False


def test_merging_replaces_all_but_mappings() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}, "d": [2]}) == {
        "a": {"b": 1, "c": 3},
        "d": [2],
    }


@pytest.mark.parametrize(
    ("start", "given", "rule"),
    [
        ({"from": "none"}, {}, "swscale"),
        ({"from": "none"}, {"resize_rule": "round"}, "round"),
        ({"from": "checkpoint.npz"}, {}, "truncate"),
        ({}, {}, "truncate"),  # its own published weights
    ],
)
def test_a_model_that_starts_from_random_weights_is_resized_as_it_is_decoded(
    start: dict[str, str], given: dict[str, str], rule: str
) -> None:
    recipe = read_recipe(None, {"model": "vivit-b-16x2-k400-hf", "init": start, "input": given})
    published = setup.find_model(read_recipe(None, {"model": "vivit-b-16x2-k400-hf"})).input.resize_rule
    assert setup.find_model(recipe).input.resize_rule == (published if rule == "truncate" else rule)


def test_sizes_that_model_and_input_share_follow_each_other() -> None:
    recipe = read_recipe(
        None, {"model": "vivit-fe", "config": {"image_size": 112}, "input": {"num_frames": 16}}
    )
    spec = setup.find_model(recipe)
    assert spec.input.image_size == (112, 112)
    assert spec.input.resize == 128
    assert spec.config["num_frames"] == 16
    with pytest.raises(ConfigError, match=r"config.image_size is 32, input.image_size 64; make them equal"):
        setup.find_model(
            read_recipe(
                None, {"model": "vivit-fe", "config": {"image_size": 32}, "input": {"image_size": 64}}
            )
        )
    with pytest.raises(ConfigError, match="did you mean 'embed_dim'"):
        setup.find_model(read_recipe(None, {"model": "vivit-fe", "config": {"embed_dims": 32}}))
    with pytest.raises(UsageError, match="did you mean"):
        setup.find_model(read_recipe(None, {"model": "vivit-fee"}))


def test_layers_are_numbered_from_the_embedding_to_the_head() -> None:
    model = build("vivit-fe", **TINY, tubelet_size=(2, 8, 8), temporal_depth=2)
    numbers = optim.layer_numbers([name for name, _ in model.named_parameters()])
    assert numbers["patch_embed.proj.weight"] == 0
    assert numbers["spatial.pos_embed"] == 0
    assert [numbers[f"spatial.blocks.{i}.attn.qkv.weight"] for i in range(2)] == [1, 2]
    assert numbers["temporal.pos_embed"] == 2
    assert [numbers[f"temporal.blocks.{i}.attn.qkv.weight"] for i in range(2)] == [3, 4]
    assert numbers["temporal.norm.weight"] == 4
    assert numbers["head.weight"] == 5
    plain = build("timesformer-divided", **TINY, patch_size=8)
    numbers = optim.layer_numbers([name for name, _ in plain.named_parameters()])
    assert (numbers["cls_token"], numbers["blocks.1.mlp.fc1.weight"], numbers["head.bias"]) == (0, 2, 3)


def test_layer_decay_and_weight_decay_reach_the_right_parameters() -> None:
    model = build("vivit-st", **TINY, tubelet_size=(2, 8, 8))
    names = {id(p): name for name, p in model.named_parameters()}
    settings = Optimizer(lr=1.0, layer_decay=0.5, weight_decay=0.1, decay_all=False)
    for group in optim.parameter_groups(model, settings):
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            depth = optim.layer_numbers([name])[name] if "blocks" not in name else 1 + int(name.split(".")[2])
            depth = 3 if name.startswith("head") else 2 if name.startswith("encoder.norm") else depth
            assert group["lr_scale"] == 0.5 ** (3 - depth), name
            plain = parameter.ndim == 1 or name.endswith(("pos_embed", "cls_token"))
            assert group["weight_decay"] == (0.0 if plain else 0.1), name
    assert not names


def test_freezing_by_name_prefix_pattern_and_backbone() -> None:
    def frozen(*patterns: str) -> set[str]:
        model = build("vivit-st", **TINY, tubelet_size=(2, 8, 8))
        optim.freeze(model, patterns)
        return {name for name, p in model.named_parameters() if not p.requires_grad}

    assert frozen("patch_embed") == {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert frozen("encoder.pos_embed") == {"encoder.pos_embed"}
    assert all(name.startswith("encoder.blocks.0.") for name in frozen("encoder.blocks.[0-0].*"))
    assert all(not name.startswith("head") for name in frozen("backbone"))
    assert len(frozen("backbone")) > 20
    assert frozen("0") == {
        name for name in frozen("backbone") if "blocks" not in name and ".norm" not in name
    }
    assert frozen("1") == frozen("0") | frozen("encoder.blocks.0")
    assert frozen("2") == frozen("backbone")
    with pytest.raises(UsageError, match="freeze=3: the model has 2 blocks"):
        frozen("3")
    with pytest.raises(UsageError, match="no parameter is called so, did you mean 'patch_embed'"):
        frozen("patch_embd")
    with pytest.raises(UsageError, match="nothing to train"):
        frozen("*")


def test_running_mean_forgets_its_start() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    mean = optim.running_mean(model, 0.99)
    with torch.no_grad():
        model.weight.fill_(1.0)
        mean.update_parameters(model)
        model.weight.fill_(3.0)
        mean.update_parameters(model)
    decay = (1 + 1) / (10 + 1)
    assert float(mean.module.weight.detach()) == pytest.approx(decay * 1.0 + (1 - decay) * 3.0)


def test_constant_schedule_warms_up() -> None:
    schedule = Schedule(kind="constant", epochs=2, warmup_epochs=1)
    assert [schedule.factor(step, 4) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
