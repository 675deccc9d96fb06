"""The first call from Python is as quick as the command: NumPy begins, and torch comes when it pays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidcls
from vidcls.engines import numpy_vivit
from vidcls.engines.numpy_vivit import NumpyViViTEngine, StartingEngine
from vidcls.engines.select import numpy_engine
from vidcls.zoo.find import find_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "pan-left.mp4"


def test_the_first_calls_import_no_torch() -> None:
    code = (
        "import sys, vidcls\n"
        "model = vidcls.load('camera-motion')\n"
        f"print(model.predict({str(EXAMPLE)!r}).label, model.engine.name, 'torch' in sys.modules)\n"
        f"print(model.predict({str(EXAMPLE)!r}).label, model.engine.name, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["pan left numpy False"] * 2


def test_another_engine_takes_over_after_so_much_work() -> None:
    first = numpy_engine(find_model("camera-motion"))
    made: list[Any] = []

    def then() -> Any:
        made.append(NumpyViViTEngine(first.tensors, first.config))
        return made[-1]

    engine = StartingEngine(first, then)
    views = np.random.default_rng(0).standard_normal((1, 3, 32, 48, 48), dtype=np.float32)
    cost = numpy_vivit.macs(first.config, 8, 1)
    calls = int(numpy_vivit.MAX_MACS // cost)
    assert calls > 3
    engine._done = (calls - 2) * cost
    for expected in (0, 0, 1, 1):
        assert np.array_equal(engine(views), first(views))
        assert len(made) == expected
    assert engine.unit_frames == first.unit_frames


@pytest.mark.parametrize(
    ("settings", "parameter"),
    [
        ({"num_frames": 0}, "num_frames"),
        ({"fps": "x"}, "fps"),
        ({"fps": 0}, "fps"),
        ({"average": "mean"}, "average"),
        ({"stride": -1}, "stride"),
    ],
)
def test_errors_speak_of_parameters(settings: dict[str, Any], parameter: str) -> None:
    with pytest.raises(vidcls.UsageError, match=parameter) as caught:
        vidcls.load("camera-motion", **settings)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize("top_k", [0, -1, "5", 2.5])
def test_numbers_of_labels(top_k: Any) -> None:
    with vidcls.load("camera-motion") as model, pytest.raises(vidcls.UsageError, match="top_k"):
        model.predict(EXAMPLE, top_k=top_k)


@pytest.mark.parametrize(
    "clip", [["a.mp4"], 3, None, {}, np.zeros((2, 2), np.uint8), np.zeros((4, 8, 8, 3)), bytearray(b"x")]
)
def test_what_is_not_a_clip_is_refused_by_a_sentence(clip: Any) -> None:
    with vidcls.load("camera-motion") as model:
        with pytest.raises(vidcls.UsageError, match="pass a path, a file's bytes, or uint8 RGB frames"):
            model.predict(clip)
        assert max(map(len, (repr(model), repr(model.read(EXAMPLE))))) < 160
