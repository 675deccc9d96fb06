"""Folders of clips → one row each: order-free, resumable, fault-isolated.

The way of a path: `listing` names it; `resume_log` says whether it is done already; a `Scorer` scores it (`pipeline`:
decode threads, a queue of clips in bytes, batches of views, one model; `multi_gpu`: a process with a pipeline for each
device, replaced when it dies or falls silent; `ray`: actors of a cluster); `row_file` appends its row, and then
`resume_log`, a SQLite `database` beside the output, counts it. At the end the rows are packed, and a format that cannot
be appended to is made of them. `run` ties these together, `progress` shows how far it is, `merge` joins what job arrays
wrote. docs/reliability.md has the promises. Nothing here imports torch before a model is loaded.
"""

from __future__ import annotations

from vidcls.score.run import Job, Summary, score

__all__ = ["Job", "Summary", "score"]
