"""The word that a user may have meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# The least ratio of `difflib` for two words to be near, and for words of up to four letters, of
# which one may be wrong. At the default of 0.6 words are offered that have little in common.
_NEAR, _NEAR_IF_SHORT = 0.75, 0.66


def nearest(word: str, words: Iterable[str], prefix: str = "") -> str:
    """The one of `words` that is nearest to `word`; empty if none is near.

    Dashes before a word and the `prefix` of all are not compared: they are the same everywhere.
    """
    import difflib  # imported only for an error message, to keep the start fast

    bare = {each.removeprefix(prefix).lstrip("-"): each for each in words}
    word = word.removeprefix(prefix).lstrip("-")
    cutoff = _NEAR_IF_SHORT if len(word) <= 4 else _NEAR
    found = difflib.get_close_matches(word, bare, n=1, cutoff=cutoff)
    return bare[found[0]] if found else ""


def did_you_mean(word: str, words: Iterable[str], prefix: str = "") -> str:
    """The end of a message: `; did you mean ...?`, or nothing if none of `words` is near."""
    near = nearest(word, words, prefix)
    return f"; did you mean {near}?" if near else ""
