"""The write side: accounts, claims, and an outbox of events owed to the log. No decision rests on a stale read."""
