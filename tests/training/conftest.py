"""Shared data of the training tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.moving import make_folder
from vidcls.training.recipe import Recipe
from vidcls.training.recipe_file import merge


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of four clips."""
    return make_folder(tmp_path_factory.mktemp("clips") / "set", 4)


@pytest.fixture
def recipe(folder: Path) -> Any:
    """Makes a recipe for seconds of training; keywords are laid over it."""

    def make(**changes: Any) -> Recipe:
        base: dict[str, Any] = {
            "model": "vivit-fe-tiny",
            "data": str(folder),
            "val": "none",
            "config": {"embed_dim": 16, "depth": 1, "temporal_depth": 1, "num_heads": 2},
            "input": {"num_frames": 4, "stride": 1, "fps": None},
            "init": {"from": "none"},
            "optimizer": {"lr": 1e-3},
            "schedule": {"epochs": 2, "warmup_epochs": 0.5},
            "batch_size": 4,
            "augment": {"directions_matter": True},
            "workers": 0,
        }
        return Recipe.model_validate(merge(base, changes))

    return make
