"""On which server's disk a recording lies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. A recording that is there lies where its call was; without a record of the call nobody knows, and it stays NULL."""
    op.add_column("recordings", sa.Column("node", sa.String(length=255), nullable=True))
    op.execute("UPDATE recordings SET node = (SELECT calls.node FROM calls WHERE calls.call_id = recordings.call_id)")
