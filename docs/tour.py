"""Run every command of the README and the documentation, and keep what they print as the documentation's examples.

python docs/tour.py                  run all commands here, then write docs/captures (not on Windows)
python docs/tour.py --new            the same in a new virtual environment with this checkout installed
python docs/tour.py --commands       run all commands and write nothing

A command is a line of a fenced block that begins with ``vidcls``. What needs the network, weights to be downloaded or a
cluster is only parsed: see ``ELSEWHERE``. A new page takes part by being there; what its commands need is made in
``prepare``, and a new capture is a line of ``CAPTURES``. ``tests/test_tour.py`` does this in CI.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CAPTURED = ROOT / "docs" / "captures"
# Words of commands that need more than this machine has at hand: the network, published weights, a cluster, minutes.
ELSEWHERE = re.compile(
    r"k400|kinetics|hub:|https?://|rtsp://|s3://|VTN_VIT|path/to|SLURM|--weights checkpoint|--runner ray|vivit/"
    r"|--config vivit|--truth|ssv2|watch (0|http|rtsp)|vivit-fe(?!-tiny)|my\.safetensors|part-\*"
)
# What takes long by default is made short; every option reads an environment variable.
SHORT = {"VIDCLS_EPOCHS": "1", "VIDCLS_SECONDS": "0.05", "OMP_NUM_THREADS": "1"}
LABELS = dict.fromkeys(
    ("report.md", "views.md"), ("pan left", "tilt up")
)  # of pages that evaluate the bundled model
WIDTHS = (80, 120)
CAPTURES = {
    "predict": "vidcls predict examples/pan-left.mp4",
    "predict-many": "vidcls predict clips/",
    "score": "vidcls score clips/ -o scores.csv",
    "models": "vidcls models --has-weights --family vivit",
    "bench": "vidcls bench --model vivit-fe-tiny --seconds 1",
    "probe": "vidcls train clips/ --probe -m camera-motion -o mine/",
    "train": "vidcls train --model vivit-fe-tiny --data clips/ -o run/ --epochs 2",
    "evaluate": "vidcls evaluate --weights mine/best.safetensors --data clips/ -o report/",
}


@dataclass(frozen=True)
class Line:
    """One command of a page.

    Attributes:
        page: The page's path below the root.
        text: The command, as a shell takes it.
    """

    page: str
    text: str

    @property
    def elsewhere(self) -> bool:
        """Whether it needs more than this machine."""
        return ELSEWHERE.search(self.text) is not None


def pages() -> list[Path]:
    """Return the README and the pages of the documentation."""
    return [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").glob("*.md") if ".notes" not in p.name)]


def commands(page: Path) -> Iterator[Line]:
    """Yield the commands of a page's fenced or indented blocks."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M) + re.findall(
        r"(?:^    \S.*\n)+", text, re.M
    )
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("python -m pip install . && ").removeprefix("$ ")
            if re.match(r"(cat \S+ \| )?vidcls ", line):
                yield Line(page.relative_to(ROOT).as_posix(), re.sub(r"\s+#.*", "", line))


def prepare(folder: Path, labels: tuple[str, str] = ("jump", "run")) -> None:
    """Lay out the files that the documentation speaks of, clips of two labels among them."""
    example = ROOT / "examples" / "pan-left.mp4"
    for name in ("examples", "films"):
        (folder / name).mkdir()
    for name in (
        "examples/pan-left.mp4",
        "clip.mp4",
        "other.mkv",
        "new.mp4",
        "query.mp4",
        "film.mp4",
        "films/film.mp4",
    ):
        shutil.copy(example, folder / name)
    listed = []
    for label, step in zip(labels, ((-2, 0), (0, 2)), strict=True):
        (folder / "clips" / label).mkdir(parents=True)
        for number, name in enumerate("abcdef"):
            path = folder / "clips" / label / f"{name}.mp4"
            _write_clip(path, number, step)
            listed.append(f"{path.relative_to(folder)},{label}")
    (folder / "list.txt").write_text("clip.mp4\nother.mkv\n")
    for name in ("clips.csv", "val.csv", "train.csv"):
        (folder / name).write_text("\n".join(["path,label", *listed]) + "\n")


def _write_clip(path: Path, seed: int, step: tuple[int, int]) -> None:
    """Write a second of noise that moves by so many pixels a frame, down and to the right."""
    import av
    import numpy as np

    picture = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8).repeat(12, 0).repeat(12, 1)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 96
        stream.pix_fmt = "yuv420p"
        for number in range(25):
            moved = np.roll(picture, (number * step[0], number * step[1]), (0, 1))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        file.mux(stream.encode())


def parse(line: Line) -> None:
    """Check a command's options and their values without running it."""
    import typer

    from vidcls.cli.app import app

    command: Any = typer.main.get_command(app)
    words = shlex.split(line.text.split("vidcls ", 1)[1].split(" | ")[0])
    while hasattr(command, "commands"):
        name = words.pop(0) if words[0] in command.commands else command.default
        command = command.commands[name]
    command.make_context("vidcls", words)


def run(line: Line, folder: Path) -> tuple[int, str]:
    """Run a command in a folder → its exit code and what it printed.

    It runs in this process, so that torch is imported once; one with a pipe has a shell.
    """
    if "|" in line.text:
        text = line.text.replace("vidcls ", f"{shlex.quote(sys.executable)} -m vidcls ")
        done = subprocess.run(text, shell=True, cwd=folder, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr
    from typer.testing import CliRunner

    from vidcls.cli.app import app

    with _inside(folder), _epochs_for(line):
        done = CliRunner().invoke(app, shlex.split(line.text)[1:])
    return done.exit_code, done.output


@contextlib.contextmanager
def _epochs_for(line: Line) -> Iterator[None]:
    """Take the number of epochs out of the environment where a probe has none, and would refuse it."""
    taken = (
        os.environ.pop("VIDCLS_EPOCHS", None)
        if "--probe" in line.text and "attentive" not in line.text
        else None
    )
    try:
        yield
    finally:
        if taken is not None:
            os.environ["VIDCLS_EPOCHS"] = taken


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def visit(page: Path) -> Iterator[tuple[Line, int, str]]:
    """Run or parse the commands of a page, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="vidcls-tour-") as place:
        folder = Path(place)
        prepare(folder, LABELS.get(page.name, ("jump", "run")))
        for line in commands(page):
            if line.elsewhere:
                parse(line)
            else:
                yield (line, *run(line, folder))


# Captures


def on_terminal(command: str, folder: Path, columns: int) -> str:
    """What a command leaves on a terminal of so many columns."""
    import pty
    import select

    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    printed = b""
    while select.select([ours], [], [])[0]:
        try:
            block = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not block:
            break
        printed += block
    os.close(ours)
    if process.wait():
        raise SystemExit(f"{command}: exit code {process.returncode}\n{printed.decode()}")
    return screen(printed.decode())


def screen(printed: str) -> str:
    """Return the lines that stay on a screen: bars are drawn over, colors are left out."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", printed):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.startswith("\x1b"):
            count = int(re.sub(r"\D", "", part) or 1)
            if part[-1] == "A":
                row = max(0, row - count)
            elif part[-1] == "K":
                lines[row] = "" if count == 2 else lines[row][:column]
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def capture() -> None:
    """Write what the commands of ``CAPTURES`` print."""
    CAPTURED.mkdir(exist_ok=True)
    for columns in WIDTHS:
        with tempfile.TemporaryDirectory(prefix="vidcls-tour-") as place:
            prepare(Path(place))
            for name, command in CAPTURES.items():
                shown = on_terminal(command, Path(place), columns)
                (CAPTURED / f"{name}-{columns}.txt").write_text(f"$ {command}\n{shown}", encoding="utf-8")
                print(f"captured {name} at {columns} columns", flush=True)


def main() -> int:
    """Take the tour."""
    parser = argparse.ArgumentParser(description="Run every command of the documentation.")
    parser.add_argument("--new", action="store_true", help="in a new virtual environment")
    parser.add_argument("--commands", action="store_true", help="write no captures")
    options = parser.parse_args()
    if options.new:
        with tempfile.TemporaryDirectory(prefix="vidcls-tour-") as place:
            venv.create(place, with_pip=True)
            python = Path(place, "Scripts" if os.name == "nt" else "bin", "python")
            subprocess.run(
                [python, "-m", "pip", "install", "-q", f"{ROOT}[train,parquet,openvino,onnx]"], check=True
            )
            again = [__file__, *(["--commands"] if options.commands else [])]
            return subprocess.run([python, *again], check=False).returncode
    os.environ.update(SHORT)
    failed = 0
    for page in pages():
        for line, code, printed in visit(page):
            print(f"{'failed' if code else 'ok':<7} {line.page}: {line.text}", flush=True)
            failed += code != 0
            if code:
                print(printed)
    if not options.commands and not failed:
        for name in SHORT:
            del os.environ[name]
        capture()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
