"""Write what we count ourselves (`ours: {params, gmacs}`) into models.yaml, one line an entry.

python benchmarks/registry_figures.py            # compare
python benchmarks/registry_figures.py --write    # put the lines into models.yaml
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from vidcls.config import builtin_registry_path, load_registry
from vidcls.errors import VidclsError
from vidcls.models.count import count_architecture


def main() -> int:
    path = Path(builtin_registry_path())
    text = path.read_text(encoding="utf-8")
    wrong = 0
    for spec in load_registry().values():
        try:
            found = count_architecture(
                spec.architecture, spec.config, spec.input.num_frames, spec.input.image_size
            )
        except VidclsError as error:
            print(f"{spec.name}: {error}", file=sys.stderr)
            continue
        gmacs = float(f"{found.macs / 1e9:.4g}")
        said = spec.published
        print(
            f"{spec.name:32} {found.params:>12,} | {said.params or 0:>12,}   {gmacs:>8} | {said.gmacs or 0:>8}"
        )
        if spec.ours is not None and (spec.ours.params, spec.ours.gmacs) == (found.params, gmacs):
            continue
        wrong += 1
        line = f"    ours: {{params: {found.params}, gmacs: {gmacs}}}\n"
        entry = re.compile(rf"(?ms)^  {re.escape(spec.name)}:\n(?:(?!^  \S).)*?(?=^\s*$|^  \S|^  #|\Z)")
        match = entry.search(text)
        assert match, spec.name
        body = re.sub(r"(?m)^    ours: .*\n", "", match.group())
        text = text[: match.start()] + body + line + text[match.end() :]
    if "--write" in sys.argv[1:]:
        path.write_text(text, encoding="utf-8")
    elif wrong:
        print(f"{wrong} entries of models.yaml are not up to date; run with --write", file=sys.stderr)
    return 0 if not wrong or "--write" in sys.argv[1:] else 1


if __name__ == "__main__":
    sys.exit(main())
