"""Stand-ins for the services: what the stack sees of one, and nothing else."""
