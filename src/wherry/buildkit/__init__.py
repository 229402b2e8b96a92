"""BuildKit's protocol on the engine: docker build, buildx, bake and compose use it.

    connections    face.py       one table of methods for every way in; sessions.py  the ways back, by id
    ------------------------------------------------------------------------------------------------
    what clients   control.py    builds, their progress        gateway.py    builds that a client drives
    ask for        history.py    builds that have been         upkeep.py     size of the cache, prune
                   contents.py   blobs by digest               worker.py, capabilities.py  what there is
    ------------------------------------------------------------------------------------------------
    a build        jobs.py       those under way, by ref       attributes.py  what is asked, as a request
                   status.py     what it says                  errors.py      how it fails
                   calls.py      ``--call``                    definitions.py LLB, where clients send it
    ------------------------------------------------------------------------------------------------
    what a build   client.py     a session as the engine's BuildClient
    asks for       filesync.py   files from the client         sending.py     results to the client
                   policy.py     may a source be used

Messages and methods are in ``proto/``. The room is imported when the first client connects with HTTP/2.
"""
