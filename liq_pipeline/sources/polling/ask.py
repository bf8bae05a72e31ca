"""Asking all sources of a round at once, until its deadline.

Belongs here: threads, clients, pages of a list, what becomes of requests that are late. Does not: what is asked
(plan.py), or how one request fails (sources/access/http.py).
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.access import limits
from liq_pipeline.sources.access.http import (
    Answer,
    BadAnswerError,
    HttpClient,
    NoTimeLeftError,
    Request,
    SourceError,
    TransientError,
)
from liq_pipeline.sources.live.values import UNREADABLE
from liq_pipeline.sources.polling.plan import Task, requests_of

LEAST_ASKING_SECONDS: Final = 0.3


def ask_all(tasks: list[Task], settings: Settings, until: float, retries: limits.Budgets) -> None:
    """Ask concurrently, at most so many at once per source; what has not been started by the deadline stays due.

    retries: what a second attempt or a further page costs; closed afterwards.
    """
    by_source: dict[str, list[Task]] = {}
    for task in tasks:
        by_source.setdefault(task.source.name, []).append(task)
    executors: list[ThreadPoolExecutor] = []
    clients: list[HttpClient] = []
    futures: dict[Future[None], Task] = {}
    for name, own in by_source.items():
        http = registry.client(own[0].source, settings)
        clients.append(http)
        executor = ThreadPoolExecutor(
            max_workers=settings.sources.requests_at_once_per_source, thread_name_prefix=f"poll {name}"
        )
        executors.append(executor)
        futures |= {executor.submit(_ask, http, task, until, retries): task for task in own}
    _, late = wait(futures, timeout=max(0.0, until - time.monotonic()) + 0.1)
    for future in late:
        task = futures[future]
        cancelled = future.cancel()
        had_its_time = time.monotonic() - task.started_at >= settings.sources.request_seconds
        task.started = not cancelled and had_its_time
        if task.started:
            # Its thread is left behind (a name that does not resolve cannot be interrupted).
            task.error = TransientError(task.source.name, "no answer before the end of the round")
    for executor in executors:
        executor.shutdown(wait=False, cancel_futures=True)
    if not late:
        for http in clients:
            http.close()
        retries.close()


def _ask(http: HttpClient, task: Task, until: float, retries: limits.Budgets) -> None:
    if until - time.monotonic() < LEAST_ASKING_SECONDS / 3:
        return
    task.started, task.started_at = True, time.monotonic()
    try:
        answers = []
        for request in requests_of(task):
            answers += _with_pages(http, task, request, until, retries)
        task.answers = answers
    except NoTimeLeftError:
        task.started = False  # the round ended, not the source's patience: it stays due
    except SourceError as error:
        task.error = error


def _with_pages(
    http: HttpClient, task: Task, request: Request, until: float, retries: limits.Budgets
) -> list[tuple[Request, Answer]]:
    answers = [(request, http.ask(request, deadline=until, again=retries.again))]
    listing = task.source.instruments
    if listing is None or task.keys[0][1] is not None or listing.next_page is None:
        return answers
    try:
        page = listing.next_page(request, answers[-1][1].payload)
        while page is not None:
            if not retries.again(page.costs):
                raise TransientError(task.source.name, "its budget has no room for the rest of the list")
            answers.append((page, http.ask(page, deadline=until, again=retries.again)))
            page = listing.next_page(page, answers[-1][1].payload)
    except UNREADABLE as error:
        raise unreadable(task.source.name, error) from error
    return answers


def unreadable(source: str, error: Exception) -> BadAnswerError:
    """What became of an answer over which a parser gave up."""
    return BadAnswerError(source, f"the answer has another form than documented ({type(error).__name__}: {error})")
