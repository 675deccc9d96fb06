"""Pages made from templates; every text is escaped unless it is marked as markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidcls.errors import printable


def render(template: Path, **values: Any) -> str:
    """Return a page.

    Args:
        template: A Jinja2 file; its filter ``shown`` makes control characters visible.
        **values: What it uses; a missing one is an error.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = printable
    return environment.get_template(template.name).render(**values)
