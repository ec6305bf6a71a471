"""The read model: tables that a projection fills and anybody may read. Disposable: the log makes it anew."""
