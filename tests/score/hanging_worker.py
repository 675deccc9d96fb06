"""A decode worker that hangs on the header of files whose name begins with ``hanging``."""

from __future__ import annotations

import os
from typing import Any

from tests.video.faulty_worker import misbehave
from vidcls.video import index as decode_index
from vidcls.video import worker as decode_worker

_build_index = decode_index.build_index


def build_index(path: str) -> Any:
    if os.path.basename(path).startswith("hanging"):
        misbehave("hang")
    return _build_index(path)


def main(alive: int | None, max_memory: int) -> None:
    decode_index.build_index = build_index
    decode_worker.main(alive, max_memory)
