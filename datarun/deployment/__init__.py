"""What a machine's own supervisor needs to run the services."""
