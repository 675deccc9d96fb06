"""The commands of the guides, run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.moving import make_folder

ROOT = Path(__file__).parents[1]


def commands(page: str) -> list[str]:
    """Lines of the blocks of a page that are marked to be run."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- run -->\n```\n(.*?)```", text, re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    assert words[0] == "vidcls"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "VIDCLS_CACHE": str(folder / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "vidcls", *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_own_classes(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    make_folder(tmp_path / "clips", 8, directions={"jump": (-2, 0), "run": (0, 2)})
    shutil.move(tmp_path / "clips" / "run" / "0.mp4", tmp_path / "clips" / "run" / "c.mp4")
    outputs = {}
    for command in commands("own-classes.md"):
        done = run(command, tmp_path)
        assert done.returncode == 0, (command, done.stderr)
        outputs[command] = done
    assert len(outputs) == 5
    fitted, predicted, *_ = outputs.values()
    assert fitted.stdout.split() == ["mine/best.safetensors"]
    assert "accuracy" in fitted.stderr
    assert "learning curve" in fitted.stderr
    assert "run" in predicted.stdout
    rows = (tmp_path / "scores.csv").read_text().splitlines()
    assert len(rows) == 1 + 16
    assert "validation set" in list(outputs.values())[-1].stderr
