"""A small code location whose runs behave and misbehave on demand, for the tests of the warm launcher."""

import os
import signal
import sys
import time

from dagster import (
    AssetCheckResult,
    Definitions,
    MaterializeResult,
    OpExecutionContext,
    asset,
    asset_check,
    define_asset_job,
    in_process_executor,
    job,
    op,
)

from liq_pipeline.defs.live.handover import start_run


@asset
def first() -> MaterializeResult:  # type: ignore[type-arg]
    return MaterializeResult(metadata={"pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0)})


@asset(deps=[first])
def second() -> MaterializeResult:  # type: ignore[type-arg]
    print("a word on stdout")
    sys.stderr.write("a word on stderr\n")
    return MaterializeResult(metadata={"rows": 3})


@asset(key=["history", "hours"])
def hours() -> None:
    """An asset of history."""


@asset_check(asset=second)
def second_is_sound() -> AssetCheckResult:
    return AssetCheckResult(passed=True)


@op
def wait_long() -> None:
    """Ends within a tenth of a second when it is interrupted."""
    for _ in range(600):
        time.sleep(0.1)


@op
def wait_deaf() -> None:
    """Hears no interrupt, like a call that hangs inside a C library."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    time.sleep(60)


@op
def leave_at_once() -> None:
    os._exit(7)


@op
def fail_in_words() -> None:
    raise ValueError("the part that fails says why")


@op
def start_another(context: OpExecutionContext) -> None:
    context.add_output_metadata({"started": start_run(context, "quick") or "nothing"})


@job(executor_def=in_process_executor)
def handing_on() -> None:
    start_another()


@job(executor_def=in_process_executor)
def patient() -> None:
    wait_long()


@job(executor_def=in_process_executor)
def deaf() -> None:
    wait_deaf()


@job(executor_def=in_process_executor)
def leaving() -> None:
    leave_at_once()


@job(executor_def=in_process_executor)
def failing() -> None:
    fail_in_words()


defs = Definitions(
    assets=[first, second, hours],
    asset_checks=[second_is_sound],
    jobs=[
        define_asset_job("quick", selection=[first, second], executor_def=in_process_executor),
        define_asset_job("past", selection=[first, hours], executor_def=in_process_executor),
        patient,
        deaf,
        leaving,
        failing,
        handing_on,
    ],
)
