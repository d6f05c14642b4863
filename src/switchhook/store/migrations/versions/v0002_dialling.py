"""Settings of accounts and trunks; what was spent on dialling."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The new columns are NULL in rows that are there: the defaults."""
    op.add_column("accounts", sa.Column("dialling", sa.JSON(), nullable=True))
    op.add_column("accounts", sa.Column("credentials_sealed", sa.LargeBinary(), nullable=True))
    op.add_column("trunks", sa.Column("options", sa.JSON(), nullable=True))
    op.create_table(
        "dialling_spend",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("microdollars", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "day", name=op.f("pk_dialling_spend")),
    )
