"""The protocol's face: HTTP/1.1 transport, Open Inference Protocol codec, routes, metrics."""
