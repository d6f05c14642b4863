"""What the destination of a transfer says to the agent is a kind of line of its own."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_CONSTRAINT = "ck_call_lines_kind"


def upgrade() -> None:
    """Apply. Lines that are there stay as they are."""
    with op.batch_alter_table("call_lines") as table:
        table.drop_constraint(op.f(_CONSTRAINT), type_="check")
        table.create_check_constraint(op.f(_CONSTRAINT), "kind IN ('log', 'agent', 'caller', 'consult')")
