"""The guard that keeps notebooks off the network (see ``sitecustomize.py`` in this folder)."""
