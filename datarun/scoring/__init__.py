"""Scores: a pure function of predictions, labels, row numbers and a scoring function, and so of the log and its blobs.

Nothing is run again for a score, and none is kept in the log: whoever has log and blobs can have every score.
"""
