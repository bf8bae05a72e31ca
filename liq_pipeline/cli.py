"""The `liq` command: arguments in, one plain sentence or a table out.

Belongs here: parsing, printing, exit codes (0 done, 1 ran but found problems, 2 could not run). Does not: the work.
Imports of the working parts stand inside the commands, so that `liq --help` answers at once.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from liq_pipeline.errors import LiqError

if TYPE_CHECKING:
    from liq_pipeline.runtime.endpoints import Endpoints
    from liq_pipeline.settings import Settings

app = typer.Typer(
    help="Early warning of crypto liquidation cascades. Not financial advice.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
alerts_app = typer.Typer(help="The alert book.", no_args_is_help=True)
app.add_typer(alerts_app, name="alerts")
dead_letters_app = typer.Typer(help="Messages that did not fit.", no_args_is_help=True)
app.add_typer(dead_letters_app, name="dead-letters")

out = Console()
err = Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
SymbolOption = Annotated[str | None, typer.Option("--symbol", help="Only this symbol, e.g. BTC.")]


def _settings() -> Settings:
    from pydantic import ValidationError

    from liq_pipeline.settings import get_settings

    try:
        return get_settings()
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        knob = name if name.startswith(("LIQ_", "COINGECKO", "ETHERSCAN")) else f"LIQ_{name}"
        raise LiqError(f"The setting {knob} is not usable: {first['msg']}.") from error


def _endpoints(settings: Settings) -> Endpoints:
    from liq_pipeline.runtime.endpoints import resolve

    return resolve(settings)


def _time(text: str, option: str) -> datetime:
    """An instant in UTC; a text without an offset is UTC."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise LiqError(f"{option} must be a time such as 2025-10-10T20:00Z, not {text!r}.") from error
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise LiqError(f"--speed must be a number above 0 or `max`, not {text!r}.") from error
    if value <= 0:
        raise LiqError(f"--speed must be above 0, not {text}.")
    return value


def _json_default(value: Any) -> Any:
    from liq_pipeline.operations.query import json_value

    return json_value(value)


@app.command()
def up(
    mode: Annotated[str | None, typer.Option(help="auto, live, simulated or recorded; LIQ_MODE otherwise.")] = None,
    recording: Annotated[Path | None, typer.Option(help="The folder to play in recorded mode.")] = None,
    speed: Annotated[str, typer.Option(help="Playing speed: 1 is real time, `max` as fast as it lands.")] = "1",
    once: Annotated[bool, typer.Option("--once", help="Stop when the recording is played and scored.")] = False,
    record: Annotated[Path | None, typer.Option(help="Write every raw answer and frame into this folder.")] = None,
) -> None:
    """Start everything in the foreground; Ctrl-C stops it cleanly."""
    settings = _settings()
    chosen = mode or settings.mode
    if chosen not in ("auto", "live", "simulated", "recorded"):
        raise LiqError(f"--mode must be auto, live, simulated or recorded, not {chosen!r}.")
    if (chosen == "recorded") != (recording is not None):
        raise LiqError("--mode recorded and --recording DIR go together.")
    if recording is not None and not recording.is_dir():
        raise LiqError(f"The recording {recording} is not a folder.")
    from liq_pipeline.runtime.up import up as run_up

    raise typer.Exit(
        run_up(
            settings,
            mode=chosen,
            recording=recording.resolve() if recording else None,
            speed=_speed(speed),
            once=once,
            record_dir=record.resolve() if record else None,
            console=out,
        )
    )


def _stop_event() -> threading.Event:
    """An event that SIGINT and SIGTERM set."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


@app.command(hidden=True)
def play(
    mode: Annotated[str, typer.Option()],
    recording: Annotated[Path | None, typer.Option()] = None,
    speed: Annotated[str, typer.Option()] = "1",
    once: Annotated[bool, typer.Option("--once")] = False,
) -> None:
    """Feed the simulated market or a recording into Kafka (a child of `liq up`)."""
    from liq_pipeline.sources.player import play as run_player

    run_player(_settings(), mode=mode, recording=recording, speed=_speed(speed), once=once, stop_event=_stop_event())


@app.command()
def collect() -> None:
    """The always-on collector of streamed data (websockets) into Kafka."""
    from liq_pipeline.sources.collect import collect as run_collect

    run_collect(_settings(), _stop_event())


@app.command()
def land() -> None:
    """A resident landing worker, for volumes beyond what the ticks land."""
    from liq_pipeline.store.landing import Lander

    settings = _settings()
    endpoints = _endpoints(settings)
    with Lander(
        endpoints.database_url, endpoints.kafka_bootstrap_servers, topic_prefix=settings.kafka_topic_prefix
    ) as lander:
        lander.run(_stop_event())


@app.command()
def migrate() -> None:
    """Bring the schema up to date; does nothing when it is."""
    from liq_pipeline.store.migrations import migrate as run_migrations

    applied = run_migrations(_endpoints(_settings()).database_url)
    out.print("\n".join(f"applied {name}" for name in applied) if applied else "The schema is up to date.")


@app.command()
def topics() -> None:
    """Bring the Kafka topics up to date; does nothing when they are."""
    from liq_pipeline.bus.admin import ensure_topics

    settings = _settings()
    made = ensure_topics(_endpoints(settings).kafka_bootstrap_servers, settings.kafka_topic_prefix)
    out.print("\n".join(f"created {name}" for name in made) if made else "The topics are up to date.")


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Health for people and scripts: exit 0 healthy, 1 degraded, 2 down."""
    import dataclasses

    from liq_pipeline.operations.status import EXIT_CODE, collect_status

    settings = _settings()
    report = collect_status(settings, _endpoints(settings))
    if as_json:
        sys.stdout.write(json.dumps(dataclasses.asdict(report), default=_json_default) + "\n")
    else:
        from liq_pipeline.operations.watch import render

        out.print(render(report))
        table = Table("part", "state", box=None, header_style="bold")
        table.add_row("database", f"{report.database}")
        table.add_row("kafka", f"{report.kafka}")
        table.add_row("dagster", f"{report.dagster}")
        table.add_row("lag (messages)", f"{report.lag}")
        for source in report.sources:
            table.add_row(f"source {source['name']}", f"{source['state']} {source['reason'] or ''}")
        out.print(table)
    raise typer.Exit(EXIT_CODE[report.health])


@app.command()
def watch(
    interval: Annotated[float, typer.Option(min=0.5, help="Seconds between looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one table and leave.")] = False,
) -> None:
    """A live table: risk with its components, pressure, probability, side, coverage, data age, open alerts, world."""
    from rich.live import Live

    from liq_pipeline.operations.status import EXIT_CODE, collect_status
    from liq_pipeline.operations.watch import render

    settings = _settings()
    endpoints = _endpoints(settings)
    if once:
        report = collect_status(settings, endpoints)
        out.print(render(report))
        raise typer.Exit(EXIT_CODE[report.health])
    stop = _stop_event()
    with Live(render(collect_status(settings, endpoints)), console=out, screen=False) as live:
        while not stop.wait(interval):
            live.update(render(collect_status(settings, endpoints)))


@app.command()
def metrics(port: Annotated[int | None, typer.Option(help="LIQ_METRICS_PORT otherwise.")] = None) -> None:
    """Serve /healthz and Prometheus /metrics on loopback (a child of `liq up`)."""
    from liq_pipeline.operations.metrics import serve_metrics
    from liq_pipeline.operations.status import collect_status

    settings = _settings()
    endpoints = _endpoints(settings)
    serve_metrics(port or settings.metrics_port, lambda: collect_status(settings, endpoints), _stop_event())


@app.command()
def doctor() -> None:
    """Check the set-up and say how to mend each finding."""
    from liq_pipeline.operations.doctor import examine

    settings = _settings()
    endpoints = None
    reason = ""
    try:
        endpoints = _endpoints(settings)
    except LiqError as error:
        reason = str(error)
    style = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    worst = 0
    table = Table("check", "", "finding", "what to do", box=None, header_style="bold")
    for finding in examine(settings, endpoints, reason):
        worst = max(worst, {"ok": 0, "warn": 0, "fail": 1}[finding.grade])
        table.add_row(finding.check, f"[{style[finding.grade]}]{finding.grade}[/]", finding.detail, finding.mend)
    out.print(table)
    raise typer.Exit(worst)


@app.command()
def score(
    from_: Annotated[str, typer.Option("--from", help="First time, UTC.")],
    to: Annotated[str, typer.Option("--to", help="Last time, UTC.")],
    symbol: SymbolOption = None,
) -> None:
    """Re-score stored history: new revisions, nothing overwritten."""
    from liq_pipeline.pipeline.models import model_in_force
    from liq_pipeline.pipeline.rescore import rescore

    settings = _settings()
    result = rescore(
        _endpoints(settings).database_url,
        settings,
        _time(from_, "--from"),
        _time(to, "--to"),
        symbol=symbol,
        load_model=model_in_force,
    )
    out.print(str(result))


@app.command()
def evaluate(
    panel: Annotated[Path, typer.Option(help="CSV or Parquet in the panel format of docs/evaluation.md.")],
    from_: Annotated[str | None, typer.Option("--from", help="First time that is judged, UTC.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Last time that is judged, UTC.")] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder for report.json and report.html.")] = None,
) -> None:
    """How good the scores and alarms are on a panel of history, beside their baselines."""
    from liq_pipeline.evaluation.run import evaluate as run_evaluation

    if not panel.exists():
        raise LiqError(f"The panel {panel} is not there.")
    report = run_evaluation(
        panel,
        None if from_ is None else _time(from_, "--from"),
        None if to is None else _time(to, "--to"),
        out_dir,
        settings=_settings(),
    )
    if out_dir is None:
        sys.stdout.write(json.dumps(report, default=_json_default) + "\n")
    else:
        out.print(f"{out_dir / 'report.json'} and {out_dir / 'report.html'} are written.")


@app.command()
def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT.")],
    as_json: JsonOption = False,
) -> None:
    """A read-only query against the store in force."""
    from liq_pipeline.operations.query import json_lines, json_value, read_only_query

    result = read_only_query(_endpoints(_settings()).database_url, statement)
    if as_json:
        for line in json_lines(result):
            sys.stdout.write(line + "\n")
        return
    table = Table(*result.columns, header_style="bold")
    for row in result.rows:
        table.add_row(*("" if value is None else str(json_value(value)) for value in row))
    out.print(table)
    out.print(f"{len(result.rows)} rows", style="dim")


@alerts_app.command("list")
def alerts_list(
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: JsonOption = False,
) -> None:
    """The alerts, newest first."""
    from liq_pipeline.alerting.book import list_alerts
    from liq_pipeline.store.connection import connect

    with connect(_endpoints(_settings()).database_url, application_name="liq alerts") as connection:
        rows = list_alerts(connection, include_resolved=everything, limit=limit)
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row, default=_json_default) + "\n")
        return
    table = Table(
        "alert",
        "opened (UTC)",
        "world",
        "rule",
        "subject",
        "at risk",
        "severity",
        "state",
        header_style="bold",
    )
    for row in rows:
        table.add_row(
            str(row["alert_id"]),
            f"{row['opened_at']:%Y-%m-%d %H:%M:%S}",
            row["world"],
            row["rule"],
            row["subject"],
            {"long": "longs", "short": "shorts"}.get(row["side"] or "", ""),
            row["severity"],
            row["state"] + (" (seen)" if row["acknowledged_at"] else ""),
        )
    out.print(table if rows else "No alerts.")


@alerts_app.command("show")
def alerts_show(alert_id: str, as_json: JsonOption = False) -> None:
    """One alert with its receipt and every delivery."""
    from liq_pipeline.alerting.book import show_alert
    from liq_pipeline.store.connection import connect

    with connect(_endpoints(_settings()).database_url, application_name="liq alerts") as connection:
        row = show_alert(connection, alert_id)
    if as_json:
        sys.stdout.write(json.dumps(row, default=_json_default) + "\n")
    else:
        out.print_json(json.dumps(row, default=_json_default))


@alerts_app.command("ack")
def alerts_ack(alert_id: str, by: Annotated[str | None, typer.Option(help="Who has seen it.")] = None) -> None:
    """Mark an alert as seen."""
    import getpass

    from liq_pipeline.alerting.book import ack
    from liq_pipeline.store.connection import connect

    with connect(_endpoints(_settings()).database_url, application_name="liq alerts") as connection:
        ack(connection, alert_id, by or getpass.getuser())
        connection.commit()
    out.print(f"{alert_id} is acknowledged.")


@alerts_app.command("test")
def alerts_test() -> None:
    """Send a test message through every configured channel."""
    from liq_pipeline.alerting.delivery import send_test

    results = send_test(_settings())
    if not results:
        raise LiqError("No channel is configured: set LIQ_ALERT_URLS to one or more Apprise URLs.")
    failed = 0
    for result in results:
        failed += not result.ok
        out.print(f"{result.channel}: {'sent' if result.ok else f'failed: {result.error}'}")
    raise typer.Exit(1 if failed else 0)


@dead_letters_app.command("list")
def dead_letters_list(
    topic: Annotated[str | None, typer.Option(help="Only this topic.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only this reason code, e.g. wrong_unit.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: JsonOption = False,
) -> None:
    """What did not fit and was not sent again, newest first, with its place and reason."""
    import dataclasses

    from liq_pipeline.store.connection import connect
    from liq_pipeline.store.dead_letters import list_letters

    with connect(_endpoints(_settings()).database_url, application_name="liq dead-letters") as connection:
        letters = list_letters(connection, topic=topic, reason_code=reason, limit=limit)
    if as_json:
        for letter in letters:
            sys.stdout.write(json.dumps(dataclasses.asdict(letter), default=_json_default) + "\n")
        return
    table = Table("place", "reason", "in words", header_style="bold")
    for letter in letters:
        table.add_row(letter.place, letter.reason_code, letter.reason)
    out.print(table if letters else "No dead letters.")


@dead_letters_app.command("resubmit")
def dead_letters_resubmit(
    topic: Annotated[str | None, typer.Option(help="Only this topic.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only this reason code.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 1000,
) -> None:
    """Send them into their topics again, after the cause was mended."""
    from liq_pipeline.bus.producer import RecordProducer
    from liq_pipeline.store.connection import connect
    from liq_pipeline.store.dead_letters import resubmit

    settings = _settings()
    endpoints = _endpoints(settings)
    producer = RecordProducer(endpoints.kafka_bootstrap_servers, settings.kafka_topic_prefix)
    try:
        with connect(endpoints.database_url, application_name="liq dead-letters") as connection:
            sent = resubmit(connection, producer, topic=topic, reason_code=reason, limit=limit)
    finally:
        producer.close()
    out.print(f"{sent} messages were sent again.")


def main() -> None:
    """Entry point: every error becomes one sentence on stderr, unless --debug asks for the traceback."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    try:
        app(args=arguments, standalone_mode=True)
    except LiqError as error:
        if debug:
            raise
        err.print(f"liq: {error}", style="red", highlight=False, markup=False)
        sys.exit(error.exit_code)
    except Exception as error:  # the last resort of the program: shown in full with --debug
        if debug:
            raise
        words = " ".join(str(error).split()) or type(error).__name__
        err.print(
            f"liq: {type(error).__name__}: {words} (run again with --debug for the traceback)",
            style="red",
            highlight=False,
            markup=False,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
