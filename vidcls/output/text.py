"""Text that came from strangers, made safe for terminals and files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

# What is not valid Unicode, and what would steer a terminal; JSON and the rest of C0 have escapes of their own.
_ESCAPED = re.compile(
    "[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)


def duration(seconds: float) -> str:
    """Write a time for people: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def sharing(units: tuple[int, int]) -> str:
    """Say what it saved that views share frames or tubelets: how many they have together, and how many were encoded."""
    saved = 100 * (1 - units[1] / units[0])
    return f"{units[1]:,} of {units[0]:,} frames or tubelets were encoded ({saved:.0f} % saved by sharing)"


def json_text(record: Mapping[str, Any], indent: int | None = None) -> str:
    """Write JSON as UTF-8 text; numbers that are not finite become null, which JSON has no word for."""
    try:
        text = json.dumps(dict(record), ensure_ascii=False, indent=indent, allow_nan=False)
    except (TypeError, ValueError):  # rare enough to look for what it is only then
        text = json.dumps(finite(dict(record)), ensure_ascii=False, indent=indent, allow_nan=False)
    return escape_json(text)


def escape_json(text: str) -> str:
    """Escape in JSON what is not valid Unicode or would steer a terminal.

    ``json.loads`` gives back the same string, and ``os.fsencode`` the same bytes.
    """
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def finite(value: Any) -> Any:
    """Return the value with None in place of each number in it that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def valid_unicode(value: Any) -> Any:
    """Return the value with escapes for what is not valid Unicode in its strings, which Parquet has no place for."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {key: valid_unicode(item) for key, item in value.items()}
    return [valid_unicode(item) for item in value] if isinstance(value, (list, tuple)) else value
