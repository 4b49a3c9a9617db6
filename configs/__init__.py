"""Configs: default.py holds every key, the others change a few."""
