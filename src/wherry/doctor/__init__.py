"""``wherryd doctor``: what this host has and lacks, what follows, and what to do.

findings    what is said about one thing          host      what is read from the host
checks      what follows from that: pure rules    report    all of it, as text or JSON
mending     ``--fix``: the packages that are missing
"""
