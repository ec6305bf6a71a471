"""Replaying a part of the log into somewhere else: tables, topics, a file. It reads by offset and joins no group."""
