"""What is in a backup: manifest.json, written last, and the checks that a backup is whole and as it was written.

Belongs here: the manifest's form, checksums, refusing what is cut short or altered. Does not: making or restoring.

Checksums find what a disk or a copy did to a backup. They do not protect from somebody who rewrites it on purpose:
keep backups where nobody else may write.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.files import write_atomically

FILE_NAME: Final = "manifest.json"
FORMAT: Final = 1
DATABASE_DUMP: Final = "database.dump"
DAGSTER_DUMP: Final = "dagster.dump"
HOME_FOLDER: Final = "home"
_BLOCK_BYTES: Final = 1024 * 1024


class Offset(msgspec.Struct, frozen=True, order=True):
    """A row of consumer_offsets."""

    consumer: str
    cluster_id: str
    topic: str
    kafka_partition: int
    topic_id: str
    next_offset: int


class Migration(msgspec.Struct, frozen=True):
    """A schema file that had run. checksum: SHA-256, hexadecimal."""

    number: int
    name: str
    checksum: str


class Server(msgspec.Struct, frozen=True):
    """The PostgreSQL that was copied. edition: none, apache or timescale."""

    postgres_version: int
    """As server_version_num: 180004."""
    edition: str
    timescaledb_version: str | None

    @property
    def major(self) -> int:
        return self.postgres_version // 10_000


class File(msgspec.Struct, frozen=True):
    """A file of the backup. sha256: hexadecimal."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds. made_at: the instant of its snapshot, RFC 3339 UTC."""

    format: int
    made_at: str
    program_version: str
    server: Server
    migrations: tuple[Migration, ...]
    world: str | None
    kafka_cluster_id: str | None
    """Of the Kafka that was in force, or was landed last if it did not answer; None if none ever was."""
    everything_landed: bool
    """Whether all that Kafka had acknowledged when the backup began is in the tables."""
    offsets: tuple[Offset, ...]
    rows: dict[str, int]
    """Rows of each table, counted in the snapshot of the dump."""
    files: dict[str, File]
    """Path below the backup's folder -> what must be there."""


class _Stored(msgspec.Struct):
    sha256: str
    manifest: msgspec.Raw


def describe(path: Path) -> File:
    """Size and checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return File(path.stat().st_size, digest.hexdigest())


def write(directory: Path, manifest: Manifest) -> None:
    """Write manifest.json (0600) in one step: from now on the backup is whole."""
    body = msgspec.json.encode(manifest)
    stored = _Stored(hashlib.sha256(body).hexdigest(), msgspec.Raw(body))
    write_atomically(directory / FILE_NAME, msgspec.json.encode(stored).decode() + "\n")
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(directory: Path) -> Manifest:
    """The manifest. LiqError in one sentence if there is none, or none that this version can use."""
    path = directory / FILE_NAME
    if not directory.is_dir():
        raise LiqError(f"there is no folder {directory}: name the folder that `liq backup` wrote")
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
    except FileNotFoundError:
        raise LiqError(
            f"the backup {directory} was cut short, it has no {FILE_NAME} (that is written last): take another one"
        ) from None
    except msgspec.DecodeError as error:
        raise _altered(path, "it cannot be read") from error
    body = bytes(stored.manifest)
    if hashlib.sha256(body).hexdigest() != stored.sha256:
        raise _altered(path, "its checksum does not fit")
    form = msgspec.json.decode(body, type=dict).get("format")
    if form != FORMAT:
        raise LiqError(
            f"the backup {directory} has format {form} and this version reads format {FORMAT}: restore it with the "
            "version of liq_pipeline that made it"
        )
    try:
        return msgspec.json.decode(body, type=Manifest)
    except msgspec.DecodeError as error:
        raise _altered(path, "it cannot be read") from error


def check_files(directory: Path, manifest: Manifest, looking_at: Callable[[str], None]) -> None:
    """Every file is there with its size and checksum, and no other. LiqError names the first that is not.

    looking_at: told each path before it is read.
    """
    present = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}
    strange = sorted(present - set(manifest.files) - {FILE_NAME})
    if strange:
        raise LiqError(f"the backup {directory} was altered: {strange[0]} does not belong to it; use an unaltered copy")
    for name in sorted(manifest.files):
        expected, path = manifest.files[name], directory / name
        if name not in present:
            raise LiqError(f"the backup {directory} is not whole: {name} is missing; use a whole copy")
        size = path.stat().st_size
        if size < expected.bytes:
            raise LiqError(
                f"the backup {directory} was cut short: {name} has {size} of {expected.bytes} bytes; use a whole copy"
            )
        looking_at(name)
        if describe(path) != expected:
            raise _altered(path, "its checksum does not fit")


def _altered(path: Path, how: str) -> LiqError:
    return LiqError(f"the backup's file {path} was altered or damaged ({how}): use an unaltered copy")
