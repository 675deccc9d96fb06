"""Count the package's lines by what they were written for, and how long its functions are.

python benchmarks/lines.py [--revision HEAD] [--json FILE]

`git blame -w -M -C` names the commit that last wrote each line of `vidcls/`; `lines.json` says what each commit since
`before` was written for (where one commit did two things: by file). Lines from before, and lines that reorganizing
wrote, are the first version's features today. Lines of commits that only folded code count for what most of their file
is for. Takes a minute; needs the whole history.
"""

from __future__ import annotations

import argparse
import ast
import collections
import concurrent.futures
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("lines.json")
SAME = ("before", "house")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--revision", default="HEAD")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here")
    args = parser.parse_args()
    files = git("ls-tree", "-r", "--name-only", args.revision, "vidcls").split()
    files = [name for name in files if name.endswith(".py")]
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    known = topics(table)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        blames = list(pool.map(lambda name: blame(args.revision, name), files))
    lines: collections.Counter[str] = collections.Counter()
    unknown: collections.Counter[str] = collections.Counter()
    for name, commits in zip(files, blames, strict=True):
        found = collections.Counter(known(commit, name) for commit in commits)
        tidied = found.pop("tidying", 0)
        # Folding code adds no feature: such lines are of what most of the file is of.
        found[found.most_common(1)[0][0] if found else "house"] += tidied
        lines += found
        unknown.update(commit[:7] for commit in commits if known(commit, name) == "not classified")
    record = {
        "revision": git("rev-parse", "--short", args.revision).strip(),
        "lines": sum(lines.values()),
        "topics": dict(lines.most_common()),
        "same features": sum(lines[topic] for topic in SAME),
        "first version": table["lines before"],
        "functions": functions(git("show", f"{args.revision}:{name}") for name in files),
    }
    print(json.dumps(record, indent=2))
    for commit, count in unknown.most_common():
        if count:
            print(f"not classified: {commit}, {count} lines", file=sys.stderr)
    if args.json is not None:
        args.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0


def topics(table: dict[str, Any]) -> Any:
    """Return (commit, file) → topic, as `lines.json` has it."""
    before = set(git("rev-list", table["before"]).split())
    topic_of = {commit: topic for topic, commits in table["commits"].items() for commit in commits}

    def topic(commit: str, name: str) -> str:
        if commit in before:
            return "before"
        parts = table["parts of commits"].get(commit[:7], {})
        return str(parts.get(name, topic_of.get(commit[:7], "not classified")))

    return topic


def blame(revision: str, name: str) -> list[str]:
    """Return the commit that last wrote each line; moved and copied lines keep theirs."""
    text = git("blame", "-w", "-M", "-C", "--line-porcelain", revision, "--", name)
    return re.findall(r"^([0-9a-f]{40}) \d+ \d+", text, re.MULTILINE)


def functions(sources: Iterator[str]) -> dict[str, float]:
    """Return how long functions are, in lines without blank lines, comments and docstring."""
    lengths = sorted(
        length(node, source.splitlines())
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return {
        "functions": len(lengths),
        "median": lengths[len(lengths) // 2],
        "nine in ten": lengths[int(len(lengths) * 0.9)],
        "longest": lengths[-1],
    }


def length(node: ast.FunctionDef | ast.AsyncFunctionDef, text: list[str]) -> int:
    documented = ast.get_docstring(node) is not None
    start = node.body[0].end_lineno if documented else node.lineno - 1
    rows = text[start : node.end_lineno]
    return sum(bool(row.strip()) and not row.strip().startswith("#") for row in rows) + documented


def git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True
    ).stdout


if __name__ == "__main__":
    raise SystemExit(main())
