"""The three services: ingest (the gateway), runner and projector. None imports another."""
