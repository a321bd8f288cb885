"""Mistakes a user can make, told in one sentence."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave does not fit: its message names the flag or file, what was found and what to do."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a list, with the nearest names that are.

    Args:
        what: The flag or kind of thing that was named, for example `--dataset`.
        name: What the user wrote.
        known: The names that would have been right.
    """
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(nearest)}?" if nearest else f"Known names: {', '.join(known)}."
    return UserError(f"{what}: there is no {name!r}. {hint}")
