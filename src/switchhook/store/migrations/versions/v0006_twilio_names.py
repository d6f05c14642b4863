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
    op.create_index("ix_calls_twilio", "calls", ["account", "line_call_id"], sqlite_where=carried, postgresql_where=carried)
