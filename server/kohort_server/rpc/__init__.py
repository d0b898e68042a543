"""The messages of the gRPC services: their schema, and the coding of the hot one."""
