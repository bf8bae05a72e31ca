"""What every reader of a chain does, whoever serves it: stay within a budget, and refuse an answer of another form.

Belongs here: the head that readers share. Does not: a provider's calls (etherscan.py, ethereum_rpc.py, trongrid.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from liq_pipeline.domain.chains import ETHEREUM, Chain
from liq_pipeline.sources.access.http import BadAnswerError, HttpClient
from liq_pipeline.sources.access.limits import BudgetError
from liq_pipeline.sources.live.values import UNREADABLE

T = TypeVar("T")


class BudgetedReader:
    """A reader that asks over HTTP. acquire: reserves a request's costs or raises BudgetError. deadline: of the round,
    in seconds of the monotonic clock."""

    is_final = False

    def __init__(
        self,
        http: HttpClient,
        acquire: Callable[[dict[str, int]], None],
        deadline: float | None = None,
        chain: Chain = ETHEREUM,
    ) -> None:
        self.chain = chain
        self.name = http.source
        self._http = http
        self._acquire = acquire
        self._deadline = deadline

    def _again(self, costs: Mapping[str, int]) -> bool:
        """Whether the budget has room for a second attempt."""
        try:
            self._acquire(dict(costs))
        except BudgetError:
            return False
        return True

    def _decoded(self, work: Callable[[], T]) -> T:
        """The result of reading an answer; BadAnswerError if it has another form than documented."""
        try:
            return work()
        except UNREADABLE as error:
            raise BadAnswerError(self.name, f"the answer has another form than documented ({error})") from error
