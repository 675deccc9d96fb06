"""Put the measured figures into README.md and pages of docs, between their markers.

python benchmarks/table.py            # compare
python benchmarks/table.py --write    # put the tables in

Reads benchmarks/results/*.json: `forward-*.json` of `benchmarks/forward.py` or `vidcls bench -o ...`,
`gpu.json`, `whole_process.json`, `startup.json`, `growth.json`, `own_classes.json` and `frame_cache.json` of the
scripts of these names.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PROGRAMS = {
    "eager": "eager",
    "eager call": "eager, pixels sent and logits back",
    "compile": "compile",
    "compile call": "compile, pixels sent and logits back",
    "transformers": "transformers",
}


def main() -> int:
    whole = tables()
    stale = 0
    for path, names in (
        ("README.md", ("speed",)),
        ("docs/performance.md", ("forward", "gpu", "whole", "startup", "growth")),
        ("docs/own-classes.md", ("own classes",)),
        ("docs/train.md", ("frame cache",)),
    ):
        file = ROOT / path
        text = file.read_text(encoding="utf-8")
        new = text
        for name in names:
            marked = re.compile(rf"(<!-- {name}: [^\n]* -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
            body = whole[name]
            new = marked.sub(lambda match, body=body: f"{match[1]}{body}{match[2]}", new)
        if new != text:
            stale += 1
            if "--write" in sys.argv[1:]:
                file.write_text(new, encoding="utf-8")
            else:
                print(f"{path} is not up to date; run with --write", file=sys.stderr)
    return 0 if not stale or "--write" in sys.argv[1:] else 1


def tables() -> dict[str, str]:
    """All tables by the names of their markers."""
    forward = [row for path in sorted(RESULTS.glob("forward-*.json")) for row in load(path)["rows"]]
    whole, growth = load(RESULTS / "whole_process.json"), load(RESULTS / "growth.json")
    return {
        "forward": forward_table(forward),
        "gpu": gpu_table(load(RESULTS / "gpu.json")),
        "whole": whole_table(whole),
        "growth": growth_table(growth),
        "startup": startup_table(load(RESULTS / "startup.json")),
        "speed": whole_table(whole),
        "own classes": own_classes_table(load(RESULTS / "own_classes.json")),
        "frame cache": frame_cache_table(load(RESULTS / "frame_cache.json")),
    }


def load(path: Path) -> dict[str, Any]:
    """Read one file of results; an absent one has nothing to show."""
    if not path.is_file():
        return {"rows": [], "programs": [], "models": {}, "ratios": {}, "runs": {}, "results": {}}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def forward_table(rows: list[dict[str, Any]]) -> str:
    """Forward passes, against transformers at fp32 where it has the model, else against eager fp32."""
    base: dict[str, dict[str, float]] = {}
    for row in rows:
        kind = (row["engine"], row["precision"])
        if not row["failed"] and (
            (kind == ("eager", "fp32") and row["model"] not in base) or kind[0] == "transformers"
        ):
            base[row["model"]] = row["seconds"]
    against = {row["model"] for row in rows if row["engine"] == "transformers"}
    head = [
        "model",
        "engine",
        "precision",
        "CPU s/view",
        "times as fast as",
        "by processor s",
        "error of logits",
    ]
    lines = [[*head, "±", "GFLOP/s", "of matmul peak", "at the peak", "memory", "clips/s"]]
    for row in rows:
        if row["failed"]:
            continue
        median = row["seconds"]["median"]
        name = "transformers" if row["model"] in against else "eager fp32"
        line = [row["model"], row["engine"], row["precision"], f"{median:.2f}"]
        other = base[row["model"]]
        line += [f"{other['median'] / median:.2f} × {name}"]
        line += [f"{other['processor'] / row['seconds']['processor']:.2f} ×", f"{row['error']:.0e}"]
        share, memory, clips = (row.get(k) for k in ("share_of_peak", "peak_memory", "clips_per_second"))
        limit = share and other["median"] / median / share
        line += [f"{spread(row['seconds'])}", f"{row['gflops_per_second']:.0f}"]
        line += ["–" if share is None else f"{100 * share:.0f} %"]
        line += ["–" if limit is None else f"{limit:.2f} ×"]
        line += ["–" if memory is None else f"{memory / 2**20:.0f} MiB"]
        line += ["–" if clips is None else f"{clips:.3f}"]
        lines.append(line)
    return markdown(lines)


def gpu_table(record: dict[str, Any]) -> str:
    """Forward passes on a GPU, in bf16."""
    lines = [["model", "program", "views together", "ms", "views/s", "TFLOP/s", "of matmul peak"]]
    lines[0] += ["times as fast as transformers", "error of logits"]
    for row in record["rows"]:
        times = row["times_transformers"]
        lines.append(
            [
                row["model"],
                PROGRAMS[row["program"]],
                str(row["batch"]),
                f"{1e3 * row['seconds']:.1f}",
                f"{row['views_per_second']:.0f}",
                f"{row['gflops_per_second'] / 1e3:.0f}",
                "–" if row["share_of_peak"] is None else f"{100 * row['share_of_peak']:.0f} %",
                "–" if times is None else f"{times:.2f}",
                f"{row['error']:.0e}",
            ]
        )
    return markdown(lines)


def whole_table(record: dict[str, Any]) -> str:
    """The whole process."""
    lines = [
        ["program", "s", "±", "times as fast", "processor s", "times fewer", "peak memory", "error of logits"]
    ]
    lines[0].append("same top-5")
    for program in record["programs"]:
        ratio = record["ratios"][program["run"]]
        error, same = ratio.get("logit_error"), ratio.get("same_top5")
        lines.append(
            [
                program["run"],
                f"{program['seconds']['median']:.2f}",
                spread(program["seconds"]),
                f"{ratio['times_as_fast_as_transformers_fp32']:.2f}",
                f"{program['cpu_seconds']:.1f}",
                f"{ratio['times_fewer_processor_seconds']:.2f}",
                f"{program['peak_memory'] / 2**20:.0f} MiB",
                "–" if error is None else f"{error:.0e}",
                "–" if same is None else "yes" if same else "no",
            ]
        )
    return markdown(lines)


def startup_table(record: dict[str, Any]) -> str:
    """Where a cold start goes."""
    lines = [["engine", "first run, s", "again, s", "peak memory", "imports, s", "largest imports, s"]]
    for name, run in record["runs"].items():
        largest = ", ".join(
            f"{package} {took:.2f}" for package, took in list(run["largest_imports"].items())[:5]
        )
        took = f"{run['first_seconds']:.2f}", f"{run['seconds']['median']:.2f}"
        memory, imports = f"{run['peak_memory'] / 2**20:.0f} MiB", f"{run['imports_seconds']:.2f}"
        lines.append([name, *took, memory, imports, largest])
    return markdown(lines)


def growth_table(record: dict[str, Any]) -> str:
    """Fitted exponents."""
    kinds = ("frames", "resolution", "views", "crops")
    lines = [["model", *kinds]]
    for name, found in record["models"].items():
        lines.append(
            [name, *(f"{found[k]['exponent']:.2f} ({found[k]['exponent_of_last_two']:.2f})" for k in kinds)]
        )
    return markdown(lines)


def own_classes_table(record: dict[str, Any]) -> str:
    """Ways to a classifier of one's own, on the same clips."""
    lines = [["trained on the same clips", "accuracy", "95 % interval", "pans and zooms", "pictures"]]
    lines[0].append("processor s")
    for name, found in record["results"].items():
        low, high = found["interval"]
        moves = [recall for label, recall in found["recalls"].items() if label.startswith(("pan", "zoom"))]
        others = [
            recall for label, recall in found["recalls"].items() if not label.startswith(("pan", "zoom"))
        ]
        shares = (f"{100 * sum(part) / len(part):.0f} %" for part in (moves, others))
        line = [f"`{name}`", f"{100 * found['top1']:.1f} %", f"{100 * low:.0f}–{100 * high:.0f} %", *shares]
        lines.append([*line, f"{found['processor_seconds']:.0f}"])
    return markdown(lines)


def frame_cache_table(record: dict[str, Any]) -> str:
    """Epochs with and without the cache of frames."""
    lines = [["`--cache-frames`", "epoch", "clips/s", "model waited"]]
    for name, found in record["runs"].items():
        for row in found["epochs"]:
            waited = f"{100 * row['data_wait']:.0f} %"
            lines.append([name, f"{row['epoch']:.0f}", f"{row['clips_per_s']:.1f}", waited])
    return markdown(lines)


def spread(seconds: dict[str, Any]) -> str:
    """Spread of a figure; one run alone has none."""
    return f"{100 * seconds['spread']:.0f} %" if seconds["repetitions"] > 1 else "one run"


def markdown(lines: list[list[str]]) -> str:
    """Rows of text → a table; a heading alone says that nothing was measured."""
    if len(lines) == 1:
        return "Not measured yet.\n"
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
