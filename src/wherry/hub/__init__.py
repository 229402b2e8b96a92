"""The registry server, ``wherry-hub``: a separate program beside the engine.

Its layers, from the lowest; each imports only those before it (``tests/test_architecture.py``):

    core      names, digests, manifests, rights: pure values, no input or output
    store     rows (SQLite or PostgreSQL) and objects (files or S3), and the statements that join them
    auth      who asks: passwords, personal tokens, bearer tokens
    worker    what is done later: the collector, expired uploads, the trash, checks
    registry  ``/v2/`` and the token endpoint on aiohttp
    cli       ``wherry-hub``: commands, configuration, the composition of all of it
"""
