"""What runs in the processes the executor starts, by exec and with an empty environment: the loader, the zygote, its children.

Nothing in here imports any other part of the project, and only this folder is visible to a submission.
"""
