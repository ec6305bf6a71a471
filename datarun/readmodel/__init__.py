"""The read model: tables that a projection fills and anybody may read. Disposable: the log makes it anew."""

SCHEMA = "rm"
"""The live read model; others are made beside it."""

NEXT = "rm_next"
"""The one that a rebuild makes, and that a swap puts in the live one's place."""

OLD = "rm_old"
"""The one that was live until the last swap."""

VERSION = "4"
"""Of the tables; raise it with any change, and the read model is made anew from the log."""
