"""The Engine API client: transports, a small HTTP/1.1 of our own, one module for each kind of object.

Everything here starts fast, so nothing in this room imports ``socket``, ``json``, ``re``, ``typing``,
``enum`` or ``msgspec`` before it is needed: a bare interpreter needs 9 ms on the machine this was
measured on, ``import msgspec`` alone 28 more, ``json`` 6 and ``socket`` 6, while a whole
``docker version`` takes 11. The C modules beneath them (``_socket``, ``_json``) cost nothing.

    discovery  which daemon to use: flags, environment, contexts
    contexts   daemons by name, on disk as the docker CLI keeps them; contextfile: in a file, for others
    endpoint   a daemon's address, taken apart, and TLS material
    transport  a connected socket for unix://, tcp:// (TLS or not) and ssh://
    ssh        the last of these: ssh runs dial-stdio on the other machine
    http       requests and responses over one connection, chunked bodies, upgrades
    api        a session: version negotiation, errors as :mod:`wherry.errors`
    streams    the framing of attached and logged output
    jsonwire   JSON as the API has it                files   reading and writing whole files
    containers, exec, images, volumes, networks, secrets, system, builds, registries   one module a noun
    archives   a container's files in and out        pack, unpack   the archives themselves
    buildcontext   the directory that a build sends
    credentials   logins to registries, as the docker CLI keeps them        manifests   its lists of manifests
"""
