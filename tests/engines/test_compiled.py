"""Compiled graphs in the cache: exact, only our own, and never in the way of a prediction."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidcls.engines import compiled, is_installed
from vidcls.engines.openvino import OpenVINOEngine

pytestmark = pytest.mark.skipif(not is_installed("openvino"), reason="OpenVINO is not installed")

SCALE_SHIFT = np.full(3, 1 / 127.5, np.float32), np.full(3, -1, np.float32)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 2, 8, 8, 3), np.uint8)
posix = pytest.mark.skipif(os.name != "posix", reason="Windows keeps a user's files by its own rules")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDCLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VIDCLS_ENGINE_CACHE", raising=False)
    return tmp_path / "cache" / "compiled"


def write_model(folder: Path, seed: int = 0, fp16: bool = False) -> Path:
    """A graph with weights enough that they are not copied into what is kept."""
    import openvino
    from openvino import opset13 as op

    numbers = np.random.default_rng(seed)
    views = op.parameter([-1, 3, 2, 8, 8], np.float32, "views")
    flat = op.reshape(views, op.constant(np.array([-1, 384])), False)
    first = op.constant(numbers.normal(size=(384, 512)).astype(np.float32))
    hidden = op.gelu(op.matmul(flat, first, False, False), "erf")
    last = op.constant(numbers.normal(size=(512, 5)).astype(np.float32))
    model = openvino.Model([op.matmul(hidden, last, False, False)], [views], "model")
    folder.mkdir(exist_ok=True)
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=fp16)
    return folder / "model.xml"


def logits(model: Path, precision: str = "fp32", stored: str = "fp32") -> np.ndarray:
    return OpenVINOEngine({"model": model}, precision, stored=stored)(PIXELS, None, SCALE_SHIFT)


def compiles(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list that grows with each graph that is compiled and not taken from the cache."""
    seen: list[Any] = []
    save = compiled.KeptGraph.save

    def noting(self: Any, graph: Any) -> None:
        seen.append(graph)
        save(self, graph)

    monkeypatch.setattr(compiled.KeptGraph, "save", noting)
    return seen


@pytest.mark.parametrize("fp16", [False, True])
def test_a_kept_graph_gives_the_same_logits(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, fp16: bool
) -> None:
    model = write_model(tmp_path / "m", fp16=fp16)
    stored = "fp16" if fp16 else "fp32"
    seen = compiles(monkeypatch)
    first = logits(model, stored=stored)
    (file,) = cache.iterdir()
    assert file.stat().st_size < model.with_suffix(".bin").stat().st_size  # it holds no weights
    assert np.array_equal(logits(model, stored=stored), first)
    assert len(seen) == 1


def test_other_pixels_other_weights_and_another_openvino_are_other_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "m")
    seen = compiles(monkeypatch)
    first = logits(model)
    engine = OpenVINOEngine({"model": model}, "fp32")
    other = engine(PIXELS, None, (SCALE_SHIFT[0] * 2, SCALE_SHIFT[1]))
    assert len(seen) == 2
    assert not np.array_equal(other, first)
    write_model(tmp_path / "m", seed=1)
    assert not np.array_equal(logits(model), first)
    assert len(seen) == 3
    monkeypatch.setattr(compiled, "_version", lambda: "another")
    logits(model)
    assert len(seen) == 4


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _link(file: Path) -> None:
    file.rename(file.with_suffix(".other"))
    file.symlink_to(file.with_suffix(".other"))


def _world(file: Path) -> None:
    file.chmod(0o666)


def _open_folder(file: Path) -> None:
    file.parent.chmod(0o777)


@pytest.mark.parametrize(
    "spoil",
    [_cut, _flip, _empty, *(pytest.param(f, marks=posix) for f in (_link, _world, _open_folder))],
)
def test_a_graph_that_is_damaged_or_that_others_can_write_is_not_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    model = write_model(tmp_path / "m")
    first = logits(model)
    seen = compiles(monkeypatch)
    spoil(next(cache.glob("*.graph")))
    assert np.array_equal(logits(model), first)
    assert len(seen) == 1


def test_the_graph_of_another_model_under_this_name_is_not_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = write_model(tmp_path / "1"), write_model(tmp_path / "2", seed=1)
    first = logits(one)
    (file,) = cache.iterdir()
    second = logits(two)
    (other,) = set(cache.iterdir()) - {file}
    os.replace(file, other)
    seen = compiles(monkeypatch)
    assert np.array_equal(logits(two), second)
    assert not np.array_equal(first, second)
    assert len(seen) == 1


def test_a_full_or_forbidden_disk_and_a_cache_of_no_size_change_no_answer(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "m")
    with monkeypatch.context() as patch:
        patch.setenv("VIDCLS_ENGINE_CACHE", "0")
        first = logits(model)
        assert not cache.exists()
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "replacing", _full)
        assert np.array_equal(logits(model), first)
    assert not [*cache.iterdir()]
    cache.rmdir()
    cache.write_text("a file in the folder's place")
    assert np.array_equal(logits(model), first)


def _full(path: Path) -> Any:
    raise OSError(28, "No space left on device")


def test_several_at_once_and_a_cache_that_vanishes(tmp_path: Path, cache: Path) -> None:
    model = write_model(tmp_path / "m")
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda _: logits(model), range(8))]
    next(cache.glob("*.graph")).unlink()
    assert all(np.array_equal(one, found[0]) for one in [*found, logits(model)])


def test_graphs_that_hold_weights_are_not_kept_and_not_written_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "MAX_BYTES", 100)
    model = write_model(tmp_path / "m")
    first = logits(model)
    (file,) = cache.iterdir()
    assert file.stat().st_size < 100
    written = file.stat().st_mtime_ns
    assert np.array_equal(logits(model), first)
    assert file.stat().st_mtime_ns == written


def test_only_so_many_are_kept(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MAX_KEPT", 2)
    for number in range(4):
        logits(write_model(tmp_path / str(number), seed=number))
    assert len([*cache.iterdir()]) == 2


def test_running_a_model_imports_no_http_client_and_the_converter_stays_at_hand() -> None:
    code = (
        "import sys; from vidcls.engines.openvino import core; core(); import openvino;"
        "assert not {'http.client', 'openvino.tools.ovc'} & set(sys.modules);"
        "from openvino import convert_model; assert convert_model is openvino.convert_model;"
        "assert 'openvino.tools.ovc' in sys.modules; assert not hasattr(openvino, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
