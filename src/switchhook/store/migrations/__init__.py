"""Alembic's migrations; `switchhook.store.migrate` runs them."""
