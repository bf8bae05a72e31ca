"""What launcher and zygote say to each other: one JSON object a line, one question and one answer a connection.

Belongs here: the shape of the messages and the client's side of the socket. Does not: what is done about them.
"""

from __future__ import annotations

import json
import socket
from typing import Any

MAX_MESSAGE_BYTES = 1 << 20


class ZygoteUnreachableError(Exception):
    """Nobody took the question: it is certain that nothing was started."""


class ZygoteFailedError(Exception):
    """The question was taken, and no good answer came back.

    A launch carries `expires_at` (seconds since the epoch), a little before the asker stops waiting: a zygote that
    reads it later starts nothing, so the asker may start the run in another way without fear of doubling it.
    """


def ask(socket_path: str, question: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
    """Put one question to the zygote.

    Raises ZygoteUnreachableError if nobody listens, ZygoteFailedError if the answer is an error or does not come.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        try:
            connection.connect(socket_path)
            connection.sendall(encode(question))
        except OSError as error:
            raise ZygoteUnreachableError(f"no zygote answers at {socket_path}: {error}") from error
        try:
            answer = read_message(connection)
        except (OSError, ValueError) as error:
            raise ZygoteFailedError(
                f"the zygote at {socket_path} took the request and did not answer: {error}"
            ) from error
    if "error" in answer:
        raise ZygoteFailedError(str(answer["error"]))
    return answer


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def read_message(connection: socket.socket) -> dict[str, Any]:
    """Read one line from a connection that has a timeout; ValueError if it is not one JSON object."""
    data = bytearray()
    while not data.endswith(b"\n"):
        chunk = connection.recv(65536)
        if not chunk:
            raise ValueError("the connection ended in the middle of a message")
        data += chunk
        if len(data) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of more than {MAX_MESSAGE_BYTES} bytes")
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("a message that is not a JSON object")  # noqa: TRY004 - the caller handles one kind of error
    return message
