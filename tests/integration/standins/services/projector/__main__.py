"""Starts the stand-in."""

from services.standin import run

run("projector")
