"""The user that PostgreSQL runs as when the program itself is root.

Belongs here: finding or making that account, and what it may reach. Does not: any other process (only PostgreSQL
refuses to run as root).
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from liq_pipeline.errors import LiqError

SYSTEM_USER: Final = "liq_pipeline"


@dataclass(frozen=True)
class Account:
    """A system account to drop to."""

    name: str
    uid: int
    gid: int


def account_to_run_as(wanted: str | None) -> Account | None:
    """None when this process is an ordinary user; else LIQ_RUN_AS, a system user made for it, or nobody.

    LiqError if the wanted user does not exist or is root itself.
    """
    if os.geteuid() != 0:
        return None
    if wanted is not None:
        account = _look_up(wanted)
        if account is None:
            raise LiqError(f"LIQ_RUN_AS names the user {wanted}, which does not exist: create it or leave it unset")
        if account.uid == 0:
            raise LiqError("LIQ_RUN_AS names root, but PostgreSQL refuses to run as root: name an ordinary user")
        return account
    account = _look_up(SYSTEM_USER) or _make_system_user() or _look_up("nobody")
    if account is None:
        raise LiqError(
            f"running as root, and neither could the user {SYSTEM_USER} be made nor is there a user nobody: name an "
            "ordinary user in LIQ_RUN_AS, or run as one"
        )
    return account


def may_use(account: Account, path: Path) -> bool:
    """True if the account can reach the path and read it (and run it, for a program)."""
    # Asked by becoming the account: rights along a path have too many sources (ACLs, mounts) to be reckoned.
    asked = subprocess.run(
        ["test", "-r", str(path), "-a", "-x", str(path)],
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return asked.returncode == 0


def _look_up(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _make_system_user() -> Account | None:
    """None where the machine has no tool for it, or does not let us."""
    if shutil.which("useradd"):
        command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        command += ["--shell", "/usr/sbin/nologin", SYSTEM_USER]
    elif shutil.which("adduser"):
        command = ["adduser", "-S", "-D", "-H", "-s", "/sbin/nologin", SYSTEM_USER]
    else:
        return None
    subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    # Another process may have made it in the same moment: what counts is that it is there now.
    return _look_up(SYSTEM_USER)
