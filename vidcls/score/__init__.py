"""Folders of clips → one row each: order-free, resumable, fault-isolated.

The way of a path: `inputs` lists it, `journal` says whether it is done already, a runner scores it (`local`: decode
threads, a queue, a model; `fleet`: several such processes; `runner_ray`: a cluster), `sink` writes its row and the
journal notes it. `run` ties them together; `merge` joins what job arrays wrote. Nothing here imports torch before a
model is loaded.
"""

from __future__ import annotations

from vidcls.score.run import Job, Summary, score

__all__ = ["Job", "Summary", "score"]
