"""The metadata of vidcls's own checkpoints, checked. Imports no torch.

A file's metadata has one entry, ``vidcls``, a JSON object of ``version``, ``architecture``, ``config`` (keywords of the
architecture), and, where known, ``labels``, ``input`` (fields of `vidcls.config.InputSpec`) and ``extra``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from vidcls.errors import CheckpointError
from vidcls.models import CONFIGS
from vidcls.models.limits import excess, show

KEY = "vidcls"
VERSION = 1
MAX_JSON = 16 << 20

Fail = Callable[[str, str], CheckpointError]
"""Makes the error of a problem and a remedy."""


def parse_record(text: str, fail: Fail) -> dict[str, Any]:
    """Read the metadata's entry; lists of sizes become tuples.

    Raises:
        CheckpointError: It is damaged, of a newer version, or names an unknown architecture.
    """
    try:
        record = json.loads(text) if len(text) <= MAX_JSON else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise fail("its metadata is damaged", "fetch the file again")
    version = record.get("version")
    if version != VERSION:
        raise fail(f"is of version {version!r}, this vidcls reads {VERSION}", "update vidcls")
    if record.get("architecture") not in list(CONFIGS):
        raise fail(f"is of the unknown architecture {record.get('architecture')!r}", "update vidcls")
    labels = record.get("labels")
    if labels is not None and not (
        isinstance(labels, list) and all(isinstance(name, str) for name in labels)
    ):
        raise fail("its labels are not a list of names", "fetch the file again")
    if record.get("input") is not None and not isinstance(record["input"], dict):
        raise fail("its input settings are damaged", "fetch the file again")
    for part in ("config", "input"):
        if record.get(part) is not None:
            found = excess(record[part])
            if found is not None:
                raise fail(f"claims {found[0]} = {show(found[1])}", "check that it is a checkpoint of vidcls")
            record[part] = tuples(record[part])
    return record


def tuples(value: Any) -> Any:
    """Give JSON's lists the type that the models' configurations have."""
    if isinstance(value, (list, tuple)):
        return tuple(map(tuples, value))
    return {key: tuples(item) for key, item in value.items()} if isinstance(value, dict) else value
