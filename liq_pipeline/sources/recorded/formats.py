"""Which format a folder is in, and opening it.

Belongs here: the list of formats. Does not: any of them. The first whose files are there is taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from liq_pipeline.sources.playing.playable import Playable
from liq_pipeline.sources.recorded import hourly_panel, minute_lines, native, raw_answers
from liq_pipeline.sources.recorded.recording import RecordingError, Selection


class Format(Protocol):
    """A module that reads one format. NAME: what it is called in a sentence."""

    NAME: str

    def is_here(self, folder: Path) -> bool:
        """Whether the folder is in this format."""
        ...

    def open_folder(self, folder: Path, selection: Selection, step_seconds: int) -> Playable:
        """The recording in the folder, scored every step_seconds."""
        ...


FORMATS: Final[tuple[Format, ...]] = (native, raw_answers, minute_lines, hourly_panel)


def open_recording(folder: Path, step_seconds: int, selection: Selection | None = None) -> Playable:
    """The recording in the folder, in whichever format. Raises RecordingError if none fits or it cannot be read."""
    if not folder.is_dir():
        raise RecordingError(f"The recording {folder} is not a folder.")
    for form in FORMATS:
        if form.is_here(folder):
            return form.open_folder(folder, selection or Selection(), step_seconds)
    known = ", ".join(form.NAME for form in FORMATS)
    raise RecordingError(f"{folder} holds no recording in a known format ({known}).")
