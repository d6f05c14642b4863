"""Calls that Twilio carries are found by its name of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    carried = sa.text("line = 'twilio'")
    # What calls itself so has no bound in earlier versions; PostgreSQL takes some 2,700 bytes into an index.
    op.execute("UPDATE calls SET line_call_id = substr(line_call_id, 1, 64) WHERE line = 'twilio' AND length(line_call_id) > 64")
    # With its time: SQLite, which is asked for the newest one, would take another index that has the order.
    columns = ["account", "line_call_id", "started_at"]
    op.create_index("ix_calls_twilio", "calls", columns, sqlite_where=carried, postgresql_where=carried)
