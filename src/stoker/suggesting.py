"""What somebody probably meant who typed a name that is not there."""

from __future__ import annotations

from collections.abc import Collection
from difflib import SequenceMatcher, get_close_matches

LONGEST = 100  # characters; comparing takes time with their square, and strangers choose the name
MOST_COMPARED = 500
MOST_MEANT = 3
MUCH_LESS = 0.1  # likeness
MOST_LISTED = 20


def meant(name: str, known: Collection[str]) -> tuple[str, ...]:
    """The names of ``known`` that ``name`` may stand for, the likeliest first; there may be none.

    Those that are the same but for case, then those that are much alike, then those of which it is a part.
    """
    if not name or len(name) > LONGEST:
        return ()
    folded = {each: each.casefold() for each in list(known)[:MOST_COMPARED] if len(each) <= LONGEST}
    wanted = name.casefold()
    if same := tuple(each for each, text in folded.items() if text == wanted):
        return same
    if alike := get_close_matches(wanted, folded.values(), n=MOST_MEANT):
        likeness = {text: SequenceMatcher(None, text, wanted).ratio() for text in alike}
        near = [text for text, ratio in likeness.items() if ratio >= max(likeness.values()) - MUCH_LESS]
        return tuple(each for text in near for each in folded if folded[each] == text)
    return tuple(each for each, text in folded.items() if wanted in text)[:MOST_MEANT]


def suggestion(name: str, known: Collection[str]) -> str:
    """The end of a sentence about a name that is not there: what was probably meant, or all there are."""
    if near := meant(name, known):
        return f"did you mean {_any_of(near)}?"
    names = list(known)
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return f"there are: {', '.join(names[:MOST_LISTED]) or 'none'}{more}"


def _any_of(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
