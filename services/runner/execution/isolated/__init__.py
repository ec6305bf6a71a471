"""What runs in the processes the executor starts: the loader, the zygote and its children.

Nothing in here imports any other part of the project, and only this folder is visible to a submission.
"""
