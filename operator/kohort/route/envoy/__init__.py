"""The route table as Envoy takes it: resources, the server that hands them out, certificates."""
