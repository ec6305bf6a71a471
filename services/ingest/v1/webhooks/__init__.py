"""Webhooks: what happens to folds is posted to where clients say, signed, in order, until it is taken."""
