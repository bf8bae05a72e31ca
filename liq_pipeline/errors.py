"""The one exception that reaches people: a single sentence that says what is wrong, where, and what to do.

Belongs here: the base of errors a user can act on, with the exit code of CONTRACTS.md. Does not: domain errors.
"""

from __future__ import annotations


class LiqError(Exception):
    """What a user can act on. exit_code: 1 ran but found problems, 2 could not run."""

    def __init__(self, sentence: str, *, exit_code: int = 2) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
