"""What this machine and the servers it is to use still lack, each with what to do about it."""
