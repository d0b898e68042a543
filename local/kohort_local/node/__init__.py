"""A node whose pods are processes: what a kubelet does, without containers and without root."""
