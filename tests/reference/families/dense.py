"""Families without experts."""
MODELS = {}
