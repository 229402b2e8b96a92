"""BuildKit's messages and methods. ``scripts/protos`` makes the ``_pb2`` and ``_rpc`` modules.

| file | who serves it | what for |
| --- | --- | --- |
| control | the daemon | builds, their progress and history, cache, workers, sessions through the connection |
| gateway | the daemon | what a client that drives a build itself asks: solve, return, read files |
| content | either | blobs by digest |
| health | either | is it there |
| trace | the daemon | spans of clients |
| filesync | the client | files of a context; results to files |
| auth, secrets, ssh, upload | the client | credentials, secrets, agents, what came on standard input |
| policy | the client | may a source be used |
| exporter | the client | what to export, asked when the result is known |

The others are messages that these share.
"""
