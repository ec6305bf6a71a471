"""The interface below /v1/: each operation declared once, as pydantic models; from that come checks and documents."""
