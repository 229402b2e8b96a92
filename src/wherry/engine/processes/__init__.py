"""Processes in containers: execs, health checks, attach, top, and resource statistics."""
