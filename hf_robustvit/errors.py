"""Mistakes a user can make, reported in one sentence."""

import difflib
from collections.abc import Iterable


# Of more names than these only the first few are listed, which show what the names look like.
MOST_LISTED, EXAMPLES = 30, 5
# Of a message of more letters than these, which files can bring about, the middle is left out.
LONGEST = 1000


class UserError(Exception):
    """Something the user gave does not fit: its message names the flag or file, what was found and what to do.

    Args:
        message: It is put on one line and, if need be, cut short: what it quotes may have many lines.
    """

    def __init__(self, message: str) -> None:
        # What a worker of a DataLoader raises, torch raises anew with the worker's whole trace before the message.
        message = message.rpartition(f"{UserError.__module__}.UserError: ")[2]
        message = " ".join(line.strip() for line in message.strip().splitlines())
        if len(message) > LONGEST:
            message = f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"
        super().__init__(message)


def first_line(error: BaseException) -> str:
    """What an error of another library says, without explanations on further lines; its type if it says nothing."""
    return str(error).strip().partition("\n")[0].rstrip(".:") or type(error).__name__


def first_few(names: Iterable[str]) -> str:
    """The first names in alphabetical order, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more


def unknown_name(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a list, with the nearest names that are.

    Args:
        what: The flag or kind of thing that was named, for example `--dataset`.
        name: What the user wrote.
        known: The names that would have been right.
    """
    known = list(known)
    containing = [whole for whole in known if name in whole]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    nearest = containing if 0 < len(containing) <= 3 else close
    if nearest:
        hint = f"Did you mean {' or '.join(nearest)}?"
    elif len(known) <= MOST_LISTED:
        hint = f"Known names: {', '.join(known)}."
    else:
        hint = f"Known names: {', '.join(known[:EXAMPLES])} and {len(known) - EXAMPLES} others."
    return UserError(f"{what}: there is no {name!r}. {hint}")
