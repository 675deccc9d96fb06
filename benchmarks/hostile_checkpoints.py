"""More than sixty hostile checkpoints, each loaded by a process of its own: how it ended, its time and its memory.

    python benchmarks/hostile_checkpoints.py [--seconds 20] [--memory 600] [--json FILE]

Ends with an error if code of a file was run, a process crashed, took longer or more memory (MiB, beyond what the
program itself takes) than is allowed, or said anything but one line. Run from the root of the repository: the files
are those of tests/checkpoints. Needs POSIX.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.checkpoints.hostile_files import ATTACKS, CONTAINERS, others
from vidcls.checkpoints import load_checkpoint
from vidcls.errors import VidclsError


class Outcome(NamedTuple):
    """What became of one file.

    Attributes:
        name: Of the file.
        ended: ``refused``, ``loaded``, ``crashed`` or ``timed out``.
        seconds: Until its process ended.
        mib: Memory of its process beyond what an idle one takes.
        said: The error's text.
    """

    name: str
    ended: str
    seconds: float
    mib: float
    said: str


def load_in_child(path: Path, seconds: float) -> tuple[str, float, int, str]:
    """Load a file in a process of its own: how it ended, seconds, peak KiB, and what it said."""
    reader, writer = os.pipe()
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.close(reader)
        ended, said = "loaded", ""
        try:
            load_checkpoint(path)
        except VidclsError as error:
            ended, said = "refused", str(error)
        except BaseException as error:
            ended, said = "crashed", repr(error)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(writer, json.dumps([ended, peak, said[:4000]]).encode())
        os._exit(0)
    os.close(writer)
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.perf_counter() - start > seconds:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
            return "timed out", seconds, 0, ""
        time.sleep(0.005)
    taken = time.perf_counter() - start
    with os.fdopen(reader, "rb") as pipe:
        written = pipe.read()
    if not written:
        return "crashed", taken, 0, "killed"
    ended, peak, said = json.loads(written)
    return ended, taken, peak, said


def run(folder: Path, seconds: float) -> tuple[list[Outcome], bool]:
    """Load every file; also whether code of any was run."""
    mark = folder / "mark"
    files: dict[str, Any] = {
        f"{attack} ({container})": lambda path, pickled=pickled, write=write: write(path, pickled)
        for attack, (pickled, _) in ATTACKS.items()
        for container, write in CONTAINERS.items()
    }
    files |= others(mark)
    path = folder / "model"
    path.write_bytes(b"nothing")
    idle = load_in_child(path, seconds)[2]
    found = []
    for name, write in files.items():
        write(path)
        ended, taken, peak, said = load_in_child(path, seconds)
        said = said.replace(str(path), "FILE")
        found.append(Outcome(name, ended, round(taken, 2), round(max(peak - idle, 0) / 1024, 1), said))
        print(f"{name:45} {ended:9} {taken:6.2f} s {found[-1].mib:7.1f} MiB  {said[:110]}", flush=True)
    return found, mark.exists()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--memory", type=float, default=600)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    # Imported before the children are made, so that none of them pays for it.
    import vidcls.checkpoints.formats

    assert vidcls.checkpoints.formats
    with tempfile.TemporaryDirectory() as folder:
        found, code_ran = run(Path(folder), arguments.seconds)
    counts = Counter(outcome.ended for outcome in found)
    slowest, largest = max(o.seconds for o in found), max(o.mib for o in found)
    wordy = [o.name for o in found if "\n" in o.said or len(o.said) > 1000]
    advice = [o.name for o in found if "weights_only" in o.said]
    print(
        f"\n{len(found)} files: {dict(counts)}; slowest {slowest:.2f} s, largest {largest:.0f} MiB; code "
        f"{'WAS' if code_ran else 'was not'} run; more than a line: {len(wordy)}; torch's advice: {len(advice)}"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps([o._asdict() for o in found], indent=1))
    bad = code_ran or wordy or advice or largest > arguments.memory or set(counts) - {"refused"}
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
