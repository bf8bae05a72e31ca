"""Commands that run until they are stopped: everything, or one part of it.

Belongs here: arguments and printing. Does not: the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from liq_pipeline.commands.shared import (
    endpoints_in_force,
    err,
    out,
    partition_numbers,
    playing_speed,
    settings_in_force,
    stop_event,
)
from liq_pipeline.errors import LiqError


def up(
    mode: Annotated[str | None, typer.Option(help="auto, live, simulated or recorded; LIQ_MODE otherwise.")] = None,
    recording: Annotated[Path | None, typer.Option(help="The folder to play in recorded mode.")] = None,
    speed: Annotated[str, typer.Option(help="Playing speed: 1 is real time, `max` as fast as it lands.")] = "1",
    once: Annotated[bool, typer.Option("--once", help="Stop when the recording is played and scored.")] = False,
    record: Annotated[Path | None, typer.Option(help="Write every raw answer and frame into this folder.")] = None,
) -> None:
    """Start everything in the foreground; Ctrl-C stops it cleanly."""
    settings = settings_in_force()
    chosen = mode or settings.mode
    if chosen not in ("auto", "live", "simulated", "recorded"):
        raise LiqError(f"--mode must be auto, live, simulated or recorded, not {chosen!r}.")
    if (chosen == "recorded") != (recording is not None):
        raise LiqError("--mode recorded and --recording DIR go together.")
    if recording is not None and not recording.is_dir():
        raise LiqError(f"The recording {recording} is not a folder.")
    from liq_pipeline.operations.misspelt import misspelt, unusable_channels

    for sentence in (*misspelt(), *unusable_channels(settings)):
        err.print(f"liq: {sentence}", style="yellow", highlight=False, soft_wrap=True)
    from liq_pipeline.runtime.up import up as run_up

    raise typer.Exit(
        run_up(
            settings,
            mode=chosen,
            recording=recording.resolve() if recording else None,
            speed=playing_speed(speed),
            once=once,
            record_dir=record.resolve() if record else None,
            console=out,
        )
    )


def play(
    mode: Annotated[str, typer.Option()],
    recording: Annotated[Path | None, typer.Option()] = None,
    speed: Annotated[str, typer.Option()] = "1",
    once: Annotated[bool, typer.Option("--once")] = False,
) -> None:
    """Feed the simulated market or a recording into Kafka (a child of `liq up`)."""
    from liq_pipeline.sources.playing.player import play as run_player

    run_player(
        settings_in_force(),
        mode=mode,
        recording=recording,
        speed=playing_speed(speed),
        once=once,
        stop_event=stop_event(alive="player"),
    )


def collect() -> None:
    """The always-on collector of streamed data (websockets) into Kafka."""
    from liq_pipeline.collector.collect import collect as run_collect

    run_collect(settings_in_force(), stop_event())


def land(
    partitions: Annotated[
        str | None,
        typer.Option(help="Partition numbers of every topic, e.g. 0,1; all otherwise. Workers may split them."),
    ] = None,
) -> None:
    """A resident landing worker, for volumes beyond what the ticks land."""
    from liq_pipeline.store.landing.lander import Lander

    settings = settings_in_force()
    endpoints = endpoints_in_force(settings)
    with Lander(
        endpoints.database_url,
        endpoints.kafka_bootstrap_servers,
        topic_prefix=settings.kafka_topic_prefix,
        partitions=None if partitions is None else partition_numbers(partitions),
    ) as lander:
        which = "all partitions" if partitions is None else f"partitions {partitions}"
        told = f"landing {which} of each topic of Kafka at {endpoints.kafka_bootstrap_servers}; Ctrl-C stops"
        err.print(told, style="dim", highlight=False, soft_wrap=True)
        lander.run(stop_event())


def metrics(
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="LIQ_METRICS_PORT otherwise.")] = None,
    host: Annotated[str, typer.Option(help="Where it listens; 0.0.0.0 is for containers.")] = "127.0.0.1",
) -> None:
    """Serve /healthz and Prometheus /metrics on loopback (a child of `liq up`)."""
    from liq_pipeline.operations.metrics import serve_metrics
    from liq_pipeline.operations.status import collect_status

    settings = settings_in_force()
    endpoints = endpoints_in_force(settings)
    serve_metrics(port or settings.metrics_port, lambda: collect_status(settings, endpoints), stop_event(), host=host)


def serve(
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="LIQ_WEB_PORT otherwise.")] = None,
    metrics_url: Annotated[str | None, typer.Option(help="Where `liq metrics` tells what has not landed yet.")] = None,
    host: Annotated[
        str | None, typer.Option(help="LIQ_WEB_HOST otherwise; beyond loopback only with LIQ_WEB_TOKEN.")
    ] = None,
) -> None:
    """The desk: the page and the read API (a child of `liq up`)."""
    from liq_pipeline.desk.doors import require_token_off_loopback

    settings = settings_in_force()
    require_token_off_loopback(settings, host or settings.web_host)
    from liq_pipeline.desk.serve import serve as run_desk

    run_desk(
        settings,
        endpoints_in_force(settings),
        host=host or settings.web_host,
        port=port or settings.web_port,
        lag_url=metrics_url or f"http://127.0.0.1:{settings.metrics_port}/metrics",
    )


def mcp() -> None:
    """The desk's read side as a Model Context Protocol server on stdin and stdout; read only."""
    from liq_pipeline.desk.mcp.ways import over_stdio

    endpoints = endpoints_in_force(settings_in_force())
    over_stdio(endpoints.database_reader_url or endpoints.database_url)
