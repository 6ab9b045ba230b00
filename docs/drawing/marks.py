"""Pages that are prose with drawn parts: each part stands between two marks, and is drawn anew there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Parts = Mapping[str, Callable[[], str]]
"""The drawn parts of a page by their names, and what draws them."""

_BEGIN = "<!-- drawn by docs/generate.py: "
_END = "<!-- end -->"
_PART = re.compile(rf"^({re.escape(_BEGIN)}(.+?) -->)$(?s:.*?)^{_END}$", re.MULTILINE)


def redrawn(page: str, parts: Parts) -> str:
    """``page`` with all of ``parts`` drawn anew. Raises ValueError where its marks are not those of ``parts``."""
    marked = [name for _, name in _PART.findall(page)]
    if sorted(marked) != sorted(parts) or not page.count(_BEGIN) == page.count(_END) == len(marked):
        raise ValueError(f"there should be marks, each with its end, of {sorted(parts)}, and there are {marked}")
    return _PART.sub(lambda part: f"{part[1]}\n\n{parts[part[2]]()}\n\n{_END}", page)
