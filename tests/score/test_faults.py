"""Broken clips and killed processes: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.score import faults


@pytest.mark.skipif(os.name != "posix", reason="kills by POSIX signals")
@pytest.mark.parametrize("form", ["jsonl", pytest.param("parquet", marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path: Path, form: str) -> None:
    """Ten clips broken in ten ways among good ones, and two kills -9."""
    checkpoint = faults.make_checkpoint(tmp_path / "tiny.safetensors")
    goods, bads = faults.make_clips(tmp_path / "clips", 24, 10)
    out = tmp_path / f"scores.{form}"
    grown = out if form == "jsonl" else tmp_path / "scores.parquet.rows"
    # The folder for those who are there from the start to the end, a list for those who vanish when they are listed.
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in bads))
    arguments = ["score", str(tmp_path / "clips"), str(tmp_path / "list.txt"), "--weights", str(checkpoint)]
    arguments += ["-o", str(out), "--decode-timeout", "5"]
    killed = faults.survive(arguments, grown, 2, seed=len(form), most=1.5, VIDCLS_TEST_SLOW="0.1")
    assert killed == 2
    if form == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
    faults.check_rows(rows, goods, bads, faults.predict(goods, checkpoint))
