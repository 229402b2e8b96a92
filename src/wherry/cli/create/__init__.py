"""From the flags of ``run`` and ``create`` to the body of ``POST /containers/create``.

flags    the flags themselves
kinds    their values, with the error messages for invalid ones
ports    -p, --expose            mounts   -v, --mount, --tmpfs
security --security-opt          networks --network and the flags that describe one endpoint
body     all of it put together
"""
