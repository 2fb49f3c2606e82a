"""The one exception that a user's mistake raises, in every layer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MonaiCaeError(ValueError):
    """Something the user can put right: bad input, a wrong setting, a file that does not fit.

    The message is one line that says what was wrong, which file or setting, and what to do; where several scans are
    broken, a line for each follows.
    """


def suggestion(name: object, known: Iterable[str], option: str = "") -> str:
    """What to do about an unknown name: the known one that it resembles, or all that there are.

    Args:
        name: as given.
        known: what it could have been.
        option: what stands before a name on the command line, such as "--split#".
    """
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {option}{close[0]}?" if close else f"there are {', '.join(known)}"
