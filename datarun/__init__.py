"""datarun trains and tests machine-learning submissions on cross-validation folds, event-sourced over Kafka."""

__version__ = "0.1.0"
