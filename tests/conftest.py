"""Shared fixtures: where the reference tensors are."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

GOLDENS = Path(__file__).parent / "goldens"
SHARED_GOLDENS = Path(__file__).parents[2] / "shared" / "goldens"

# A shell starts background jobs with Ctrl-C ignored, and children inherit that: the tests that interrupt a process
# would wait for ever.
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)


def golden_dirs(*patterns: str) -> list[Path]:
    """Folders of reference cases matching the glob patterns.

    The copies in ``tests/goldens`` always count; where the checkout has ``../shared/goldens`` beside it, the
    cases there that were too large to copy are added.
    """
    found: dict[str, Path] = {}
    for root in (SHARED_GOLDENS, GOLDENS):
        for pattern in patterns:
            for folder in sorted(root.glob(pattern)):
                found[f"{root.parent.name}-{folder.name}"] = folder
    return list(found.values())


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep converted models and what is remembered of checkpoints out of the person's own cache."""
    os.environ["VIDCLS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
