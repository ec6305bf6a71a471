"""The local stack: a real Kafka and a real Postgres beside our services, without docker, root or configuration."""
