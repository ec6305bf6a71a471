"""Packages beside the runner's own: asked for in the log, built in folders, imported by folds from their next start."""
