"""Retrain jobs: asked for, scheduled, run in a process of their own, judged, activated."""
