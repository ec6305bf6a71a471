"""Alembic's history of the intake schema; the read model has none, it is made anew from the log."""

HEAD = "0008"
"""The newest revision; a database that is there needs neither alembic nor its half second."""
