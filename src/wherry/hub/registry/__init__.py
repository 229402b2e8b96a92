"""The data plane: ``/v2/`` of the OCI distribution specification, and the token endpoint, on aiohttp.

server      connections, the handling of a request, errors
paths       a path's parts, and which method means which action
access      authentication and authorisation of a request
blobs, uploads, manifests, listings, tokens     the endpoints
"""
