"""The player: sends a simulated or recorded world through Kafka, at a chosen speed, so that nothing is ever missing.

Belongs here: pacing, order, backpressure, resuming. Does not: what is played (simulated/, recorded/), landing it.

What a watermark promises is kept in this order: the records of a batch of steps are sent and acknowledged, only then
the watermark behind them is sent, into every partition, and acknowledged too. If Kafka goes away in between, the whole
batch is sent again until it arrives: landing ignores what it has already seen. After a kill the player reads how far
the world has landed and goes on from there, for the same reason.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import psycopg
from kafka.errors import KafkaError
from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from liq_pipeline.bus.producer import PublishError, RecordProducer
from liq_pipeline.domain.worlds import World
from liq_pipeline.errors import LiqError
from liq_pipeline.settings import Settings
from liq_pipeline.sources.playing.playable import Message, Playable, Step
from liq_pipeline.sources.recorded.formats import open_recording
from liq_pipeline.sources.recorded.recording import Selection
from liq_pipeline.sources.simulated import world as simulated_world
from liq_pipeline.sources.simulated.source import SimulatedSource
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

MAX_AHEAD: Final = 200_000
"""Messages sent beyond what has landed: past this, a killed player would have too much to send again."""
BATCH_MESSAGES: Final = 10_000
"""Steps are gathered up to this many messages per watermark when the player has to hurry."""
LANDED_POLL_SECONDS: Final = 0.5
SNAPSHOT_FOLDER: Final = "simulation"
DELIVERY_SECONDS: Final = 15.0
"""Without an acknowledgement for this long the batch is sent again; also how long stopping may take without Kafka."""
_LONGEST_RETRY_SECONDS: Final = 15.0


@dataclass(frozen=True)
class PlayResult:
    """What one call of play() did. played_to: the last watermark sent. finished: the recording's end was reached."""

    world: str
    messages: int
    played_to: datetime | None
    finished: bool


class _StoppedError(Exception):
    """Told to stop."""


class _Stop:
    """The wish to stop, heard in every wait."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def wait(self, seconds: float) -> None:
        """Wait, at least long enough to hear the wish. Raises _StoppedError."""
        if self._event.wait(seconds) if seconds > 0 else self._event.is_set():
            raise _StoppedError

    def insist(self, on: str, error: type[Exception] | tuple[type[Exception], ...], attempt: Callable[[], _T]) -> _T:
        """Try until it works, waiting longer each time and saying why. Raises _StoppedError."""

        def tell(state: RetryCallState) -> None:
            cause = state.outcome.exception() if state.outcome else None
            _LOG.warning("%s is not available, try %d: %s", on, state.attempt_number, cause)

        retrying = Retrying(
            retry=retry_if_exception_type(error),
            wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_RETRY_SECONDS),
            stop=stop_when_event_set(self._event),
            sleep=sleep_using_event(self._event),
            before_sleep=tell,
        )
        try:
            return retrying(attempt)
        except RetryError as final:
            raise _StoppedError from final


class _Schedule:
    """When each step is due, on an absolute clock, so that delays do not add up."""

    def __init__(self, world: World, speed: float | None) -> None:
        self._speed = speed
        # A simulated world at its natural speed lives with the clock on the wall and catches up after a pause.
        self._is_wall = world.kind == "simulated" and speed == 1.0
        self._origin: tuple[float, datetime] | None = None

    def seconds_until(self, step: Step) -> float:
        """How long until the step is due; zero or less: now."""
        if self._speed is None:
            return 0.0
        if self._is_wall:
            return (step.time - datetime.now(UTC)).total_seconds()
        if self._origin is None:
            self._origin = (time.monotonic(), step.time)
        began, first = self._origin
        return began + (step.time - first).total_seconds() / self._speed - time.monotonic()


class _LandedClock:
    """How far a world has landed; None while that is unknown, also when the database is away for a moment."""

    def __init__(self, database_url: str, world: World) -> None:
        self._database_url, self._world = database_url, world

    def __call__(self) -> datetime | None:
        try:
            with connect(self._database_url, application_name="liq-player") as connection:
                return worlds.landed_to(connection, self._world)
        except psycopg.OperationalError as error:
            _LOG.warning("cannot read how far %s has landed: %s", self._world.name, error)
            return None


def play(
    settings: Settings,
    *,
    mode: str,
    recording: Path | None = None,
    speed: float | None = 1.0,
    once: bool = False,
    stop_event: threading.Event,
    selection: Selection | None = None,
) -> PlayResult:
    """Play the simulated world of this home, or a recording, until stop_event is set or it has ended.

    mode: simulated or recorded. speed: times real time; None as fast as it lands. once: return at the end of a
    recording, or when a simulated world has caught up with now; otherwise stay until stop_event. Raises LiqError if it
    cannot begin: no addresses, no recording, a folder that cannot be read.
    """
    database_url, servers = _addresses(settings)
    stop = _Stop(stop_event)
    try:
        with stop.insist("the database", psycopg.OperationalError, lambda: connect(database_url)) as connection:
            connection.autocommit = True
            playable = _open(settings, connection, mode, recording, selection)
            world = playable.world
            with connection.transaction():
                worlds.register(connection, world, activate=True)
            landed_to = worlds.landed_to(connection, world)
    except _StoppedError:
        return PlayResult("", 0, None, finished=False)
    _LOG.info("playing %s %s", world.name, "from its beginning" if landed_to is None else f"after {landed_to}")
    player = Player(
        playable,
        servers=servers,
        topic_prefix=settings.kafka_topic_prefix,
        landed_to=_LandedClock(database_url, world),
        speed=speed,
        stop_event=stop_event,
    )
    result = player.run(landed_to, until_now=once and mode == "simulated")
    if result.finished:
        _LOG.info("%s is played to its end, %s", world.name, world.last_time)
        if not once:
            stop_event.wait()
    return result


class Player:
    """Sends the steps of one playable world. run() is called once."""

    def __init__(
        self,
        playable: Playable,
        *,
        servers: str,
        topic_prefix: str,
        landed_to: Callable[[], datetime | None],
        speed: float | None,
        stop_event: threading.Event,
        max_ahead: int = MAX_AHEAD,
        delivery_seconds: float = DELIVERY_SECONDS,
    ) -> None:
        """landed_to: how far the world is in the database. speed: times real time, None without pacing.

        delivery_seconds: how long Kafka may take to acknowledge a batch before it is sent again.
        """
        if speed is not None and speed <= 0:
            raise LiqError(f"the playing speed must be above 0, not {speed:g}.")
        self._playable = playable
        self._servers, self._prefix = servers, topic_prefix
        self._landed_to = landed_to
        self._speed = speed
        self._stop = _Stop(stop_event)
        self._max_ahead = max_ahead
        self._delivery_seconds = delivery_seconds
        self._producer: RecordProducer | None = None
        self._sent = 0
        self._played_to: datetime | None = None
        self._in_flight: deque[tuple[datetime, int]] = deque()
        self._in_flight_messages = 0

    @property
    def sent(self) -> int:
        """Messages acknowledged so far, watermarks not counted."""
        return self._sent

    def run(self, after: datetime | None, *, until_now: bool = False) -> PlayResult:
        """Play what lies after `after`, until the end, the stop event, or (until_now) the present moment."""
        world = self._playable.world
        finished = False
        try:
            for batch in self._batches(after, until_now):
                self._wait_for_landing()
                self._deliver(batch)
            finished = not until_now
        except _StoppedError:
            _LOG.info("told to stop: %s is played to %s", world.name, self._played_to)
        finally:
            self._drop_producer()
        return PlayResult(world.name, self._sent, self._played_to, finished)

    # -- pacing ------------------------------------------------------------------------------------------------

    def _batches(self, after: datetime | None, until_now: bool) -> Iterator[list[Step]]:
        """Steps that are due, gathered up to BATCH_MESSAGES; the last step of a batch carries its watermark."""
        schedule = _Schedule(self._playable.world, self._speed)
        batch: list[Step] = []
        size = 0
        for step in self._playable.steps(after):
            if until_now and step.time > datetime.now(UTC):
                break
            wait_seconds = schedule.seconds_until(step) if step.is_complete else 0.0
            if batch and (wait_seconds > 0 or size >= BATCH_MESSAGES):
                yield batch
                batch, size = [], 0
            self._stop.wait(wait_seconds)
            batch.append(step)
            size += len(step.messages)
        if batch:
            yield batch

    def _wait_for_landing(self) -> None:
        """Wait while too much is sent and not landed. A history that only makes sense as a whole is never held."""
        while self._in_flight_messages > self._max_ahead:
            landed = self._landed_to()
            if landed is not None:
                self._playable.landed(landed)
                while self._in_flight and self._in_flight[0][0] <= landed:
                    self._in_flight_messages -= self._in_flight.popleft()[1]
            if self._in_flight_messages > self._max_ahead:
                self._stop.wait(LANDED_POLL_SECONDS)

    # -- sending -----------------------------------------------------------------------------------------------

    def _deliver(self, batch: list[Step]) -> None:
        """Send a batch and its watermark, again and again until both are acknowledged."""
        messages = [message for step in batch for message in step.messages]
        watermark = batch[-1].time if batch[-1].is_complete else None
        self._stop.insist("Kafka", (PublishError, KafkaError), lambda: self._try(messages, watermark))
        self._sent += len(messages)
        if watermark is not None:
            self._played_to = watermark
            self._in_flight.append((watermark, len(messages)))
            self._in_flight_messages += len(messages)

    def _try(self, messages: list[Message], watermark: datetime | None) -> None:
        try:
            if self._producer is None:
                self._producer = RecordProducer(
                    self._servers, self._prefix, client_id="liq-player", delivery_timeout_seconds=self._delivery_seconds
                )
            producer = self._producer
            for message in messages:
                if isinstance(message, tuple):
                    producer.send_heartbeat(*message)
                else:
                    producer.send(message)
            if watermark is not None:
                # In another partition the watermark could overtake a record: acknowledge the records first.
                producer.flush(self._delivery_seconds)
                producer.send_watermark(self._playable.world.name, watermark)
            producer.flush(self._delivery_seconds)
        except (PublishError, KafkaError):
            # A producer that gave up on a message has lost its place in the sequence: begin with a new one.
            self._drop_producer()
            raise

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                producer.close(timeout_seconds=5.0)
            except (PublishError, KafkaError) as error:
                # What it still held belongs to a batch that is sent again, or that nobody was promised.
                _LOG.warning("while closing the producer: %s", error)


def _addresses(settings: Settings) -> tuple[str, str]:
    """The database's URL and Kafka's bootstrap servers. Raises LiqError if one is missing."""
    if settings.database_url is None or settings.kafka_bootstrap_servers is None:
        raise LiqError("the player needs LIQ_DATABASE_URL and LIQ_KAFKA_BOOTSTRAP_SERVERS; `liq up` sets both.")
    return settings.database_url.get_secret_value(), settings.kafka_bootstrap_servers


def _open(
    settings: Settings,
    connection: psycopg.Connection[Any],
    mode: str,
    recording: Path | None,
    selection: Selection | None,
) -> Playable:
    if mode == "recorded":
        if recording is None:
            raise LiqError("playing a recording needs its folder: --recording DIR.")
        return open_recording(recording, settings.score_step, selection)
    if mode != "simulated":
        raise LiqError(f"the player plays simulated and recorded worlds, not {mode!r}.")
    return _open_simulated(settings, connection)


def _open_simulated(settings: Settings, connection: psycopg.Connection[Any]) -> SimulatedSource:
    """The simulated world that this home goes on with, or a new one."""

    def landed_to(name: str) -> datetime | None:
        known = worlds.get(connection, name)
        return None if known is None else worlds.landed_to(connection, known)

    stored = simulated_world.load(settings.home)
    simulation, reason = simulated_world.choose(
        stored,
        seed=settings.simulation_seed,
        symbols=settings.symbols,
        now=datetime.now(UTC),
        landed_to=landed_to,
        is_taken=lambda name: worlds.get(connection, name) is not None,
        cascade_in_seconds=settings.simulation_cascade_in,
    )
    is_new = stored is None or stored.name != simulation.name
    _LOG.log(logging.WARNING if is_new and stored is not None else logging.INFO, "simulated market: %s", reason)
    for script in simulation.scripts:
        _LOG.info("a scripted cascade hits %s at %s", simulation.name, datetime.fromtimestamp(script.hit_at, UTC))
    if is_new and stored is not None:
        shutil.rmtree(settings.home / SNAPSHOT_FOLDER / stored.seed, ignore_errors=True)
    simulated_world.save(settings.home, simulation)

    def remember(generated_to: datetime) -> None:
        simulated_world.save(settings.home, msgspec.structs.replace(simulation, generated_to=generated_to))

    return SimulatedSource(simulation, settings.home / SNAPSHOT_FOLDER / simulation.seed, remember)
