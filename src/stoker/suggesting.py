"""What somebody probably meant who typed a name that is not there."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable
from difflib import SequenceMatcher, get_close_matches

LONGEST = 100  # characters; comparing takes time with their square, and strangers choose the name
MOST_LOOKED_AT = 500
MOST_COMPARED = 50  # 40 us for each that is alike; 500 took 17 ms
MOST_MEANT = 3
MUCH_LESS = 0.1  # likeness
MOST_LISTED = 20


def meant(name: str, known: Collection[str]) -> tuple[str, ...]:
    """The names of ``known`` that ``name`` may stand for, the likeliest first; there may be none.

    Those that are the same but for case, then those that are much alike, then those of which it is a part.
    """
    if not name or len(name) > LONGEST:
        return ()
    folded = {each: each.casefold() for each in list(known)[:MOST_LOOKED_AT] if len(each) <= LONGEST}
    wanted = name.casefold()
    if same := tuple(each for each, text in folded.items() if text == wanted):
        return same
    if alike := get_close_matches(wanted, _likeliest(wanted, folded.values()), n=MOST_MEANT):
        likeness = {text: SequenceMatcher(None, text, wanted).ratio() for text in alike}
        near = [text for text, ratio in likeness.items() if ratio >= max(likeness.values()) - MUCH_LESS]
        return tuple(each for text in near for each in folded if folded[each] == text)
    return tuple(each for each, text in folded.items() if wanted in text)[:MOST_MEANT]


def suggestion(name: str, known: Collection[str]) -> str:
    """The end of a sentence about a name that is not there: what was probably meant, or all there are."""
    if near := meant(name, known):
        return f"did you mean {_any_of(near)}?"
    return there_are(known)


def suggestion_and_all(name: str, known: Collection[str]) -> str:
    """The same for a program's log, where nobody can ask for the rest: what was probably meant, and all there are."""
    if near := meant(name, known):
        return f"did you mean {_any_of(near)}? There are: {_listed(known)}"
    return there_are(known)


def there_are(known: Collection[str]) -> str:
    """All there are, or the first of them."""
    return f"there are: {_listed(known)}"


def _likeliest(wanted: str, texts: Collection[str]) -> Iterable[str]:
    """Of many, those that begin and end most like it, as one does of which a letter is wrong, missing or too many."""
    if len(texts) <= MOST_COMPARED:
        return texts
    backwards = wanted[::-1]

    def in_place(text: str) -> int:
        same: int = sum(map(operator.eq, wanted, text)) + sum(map(operator.eq, backwards, text[::-1]))
        return same

    return sorted(texts, key=in_place, reverse=True)[:MOST_COMPARED]


def _listed(known: Collection[str]) -> str:
    names = list(known)
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return f"{', '.join(names[:MOST_LISTED]) or 'none'}{more}"


def _any_of(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
