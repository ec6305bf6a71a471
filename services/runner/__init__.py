"""The runner: takes folds and splits from the queues, runs each in a fresh process, appends what happened."""
