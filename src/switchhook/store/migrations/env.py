"""Alembic's environment: the connection is handed in, there is no configuration file."""

from __future__ import annotations

from alembic import context

from switchhook.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
