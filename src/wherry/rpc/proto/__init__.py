"""Messages that belong to gRPC itself. ``scripts/protos`` makes the generated modules."""
