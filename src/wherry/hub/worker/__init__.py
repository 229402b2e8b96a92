"""Background work: the collector, expired uploads, the trash, checks.

Any number of workers may run at once, on any replica: each locks its rows, and the others skip them.
"""
