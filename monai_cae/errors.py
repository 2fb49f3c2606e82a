"""The one exception that a user's mistake raises, in every layer."""

from __future__ import annotations


class MonaiCaeError(ValueError):
    """Something the user can put right: bad input, a wrong setting, a file that does not fit.

    The message is one line that says what was wrong, which file or setting, and what to do; where several scans are
    broken, a line for each follows.
    """
