"""The tables. A change here needs a migration: a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    literal_column,
)

REVISION = "0006"
"""The migration that the code needs."""


class UtcTime(TypeDecorator[datetime]):
    """An aware time; SQLite has no zones and keeps it as UTC text."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware, in UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored time needs its zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class FreeText(TypeDecorator[str]):
    """Text from the line, the model or the customer: NUL and lone surrogates, which databases refuse, become U+FFFD."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Storable text."""
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _choice(column: str, *values: str) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in values)})", name=column)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

accounts = Table(
    "accounts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("dialling", JSON),
    Column("credentials_sealed", LargeBinary),
)
"""`dialling`: the account's DiallingRules; NULL: the defaults. `credentials_sealed` is JSON: its Twilio and Veevo secrets."""

dialling_spend = Table(
    "dialling_spend",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("microdollars", BigInteger, nullable=False),
)
"""Estimated cost of what an account dialled on a UTC day, that of live calls by their longest duration."""

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("account", ForeignKey("accounts.name"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
)
"""`digest` is the SHA-256 of the token; the token itself is kept nowhere."""

trunks = Table(
    "trunks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("account", ForeignKey("accounts.name"), nullable=False),
    Column("address", FreeText, nullable=False),
    Column("allow_from", JSON, nullable=False),
    Column("username", FreeText),
    Column("password_sealed", LargeBinary),
    Column("register", Boolean, nullable=False),
    Column("options", JSON),
)
"""`options`: the rest of a Trunk's settings by name, none secret; what is not there has its default."""

numbers = Table(
    "numbers",
    metadata,
    Column("number", String(16), primary_key=True),
    Column("account", ForeignKey("accounts.name"), nullable=False),
    Column("contract", String(32), nullable=False),
    Column("settings_sealed", LargeBinary, nullable=False),
)
"""`settings_sealed` is JSON: the headers in it authenticate us at the customer's."""

counters = Table("counters", metadata, Column("name", String(32), primary_key=True), Column("value", BigInteger, nullable=False))
"""`directory` counts changes of the configuration, so that a running server notices those of another process."""

nodes = Table("nodes", metadata, Column("name", String(255), primary_key=True), Column("seen_at", UtcTime, nullable=False))
"""Servers and when each last wrote down that it lives with calls up."""

calls = Table(
    "calls",
    metadata,
    Column("call_id", String(64), primary_key=True),
    Column("node", String(255), nullable=False),
    Column("account", String(64)),
    Column("number", String(16)),
    Column("contract", String(32)),
    Column("direction", String(8), nullable=False),
    Column("called", FreeText, nullable=False),
    Column("caller", FreeText, nullable=False),
    Column("caller_name", FreeText),
    Column("line", String(16), nullable=False),
    Column("line_call_id", FreeText, nullable=False),
    Column("trunk", String(64)),
    Column("started_at", UtcTime, nullable=False),
    Column("call_start_sent_at", UtcTime),
    Column("connected_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("ending", String(32)),
    Column("outcome", String(16)),
    Column("reason", FreeText),
    Column("message", FreeText),
    Column("customer_call_id", FreeText),
    Column("journal_tool_requests", Boolean, nullable=False),
    Column("journal_tool_replies", Boolean, nullable=False),
    Column("journal_transcript", Boolean, nullable=False),
    Column("end_webhook_owed", Boolean, nullable=False),
    Column("referred_out", Boolean, nullable=False),
    Column("transfers", JSON, nullable=False),
    Column("usage", JSON, nullable=False),
    Column("figures", JSON, nullable=False),
    Column("costs", JSON),
    _choice("direction", "inbound", "outbound"),
    Index("ix_calls_account", "account", "started_at"),
    Index("ix_calls_started_at", "started_at"),
)
"""One row for each attempt, whatever came of it. Accounts, numbers and trunks may be gone since: no foreign keys."""

OVER_TWILIO = calls.c.line == literal_column("'twilio'")
"""A literal, not a parameter: so the planner sees that the index serves."""
Index(
    "ix_calls_twilio",
    calls.c.account,
    calls.c.line_call_id,
    calls.c.started_at,
    sqlite_where=OVER_TWILIO,
    postgresql_where=OVER_TWILIO,
)
Index("ix_calls_live", calls.c.node, sqlite_where=calls.c.ended_at.is_(None), postgresql_where=calls.c.ended_at.is_(None))

call_lines = Table(
    "call_lines",
    metadata,
    Column("call_id", String(64), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(8), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("text", FreeText, nullable=False),
    Column("spoken_order", Integer, nullable=False),
    Column("interrupted", Boolean, nullable=False),
    ForeignKeyConstraint(["call_id"], ["calls.call_id"], ondelete="CASCADE"),
    _choice("kind", "log", "agent", "caller", "consult"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("call_id", String(64), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("node", String(255), nullable=False),
    Column("account", String(64), nullable=False),
    Column("number", String(16), nullable=False),
    Column("contract", String(32), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("next_attempt_at", UtcTime, nullable=False),
    Column("last_error", FreeText),
    Column("delivered_at", UtcTime),
    _choice("state", "pending", "delivered", "parked"),
    Index("ix_outbox_state", "state", "node", "next_attempt_at"),
)
"""Events on their way; the primary key makes them one of a kind for each call."""

recordings = Table(
    "recordings",
    metadata,
    Column("call_id", String(64), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("format", String(8), nullable=False),
    Column("encrypted", Boolean, nullable=False),
    Column("path", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("salvaged", Boolean, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("purge_at", UtcTime),
    Column("node", String(255)),
    _choice("state", "spooling", "making", "ready", "failed"),
    Index("ix_recordings_account", "account", "created_at"),
    Index("ix_recordings_state", "state"),
)
"""`node`: the server on whose disk it lies; NULL: nobody knows, and every server takes it for its own."""
