"""The gateway: turns HTTP commands into accepted facts. It never trains and never waits for training."""
