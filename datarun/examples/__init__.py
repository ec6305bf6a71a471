"""Datasets and submissions that run as they are: what the demo sends, and what a first submission may start from."""
