"""Every version of the intake schema, oldest first."""
