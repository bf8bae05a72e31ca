"""What runs need from outside, as plain objects.

Belongs here: making settings and addresses available under one name. Does not: connections that outlive a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from dagster import InitResourceContext, resource

from liq_pipeline.runtime.endpoints import Endpoints, resolve
from liq_pipeline.settings import Settings, get_settings
from liq_pipeline.store.connection import connect


@dataclass(frozen=True)
class Services:
    """Settings, and where the servers are."""

    settings: Settings
    endpoints: Endpoints

    @classmethod
    def in_force(cls) -> Services:
        """From the environment and, outside the supervisor, from LIQ_HOME/runtime.json; LiqError if nothing runs."""
        settings = get_settings()
        return cls(settings, resolve(settings))

    def connect(self, application_name: str) -> psycopg.Connection[Any]:
        """A connection of our own database; the caller closes it."""
        return connect(self.endpoints.database_url, application_name=application_name)

    def connect_as_owner(self, application_name: str) -> psycopg.Connection[Any]:
        """The same as the schema's owner, where this process knows how to log in as it."""
        return connect(
            self.endpoints.database_owner_url or self.endpoints.database_url, application_name=application_name
        )


@resource(description="Settings and the addresses of the servers, as a plain `Services` object.")
def services_in_force(_context: InitResourceContext) -> Services:
    """Looked up when a run starts, so definitions load with no server running."""
    return Services.in_force()
