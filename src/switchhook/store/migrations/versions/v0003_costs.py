"""What a call cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The new column is NULL in rows that are there: nobody knows."""
    op.add_column("calls", sa.Column("costs", sa.JSON(), nullable=True))
