"""A face: what the daemon does, as OpenTelemetry's traces, sent to a collector (OTLP over HTTP, in JSON).

``settings`` reads the environment variables that OpenTelemetry defines for it, ``spans`` makes spans of
requests and builds, ``exporter`` sends them. The daemon imports this room only where an endpoint is named.
"""
