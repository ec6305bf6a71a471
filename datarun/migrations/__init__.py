"""Alembic's history of the intake schema; the read model has none, it is made anew from the log."""
