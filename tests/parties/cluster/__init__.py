"""Kubernetes, KEDA and Knative as processes on one machine, with a stand-in for what only a cluster of nodes has."""
