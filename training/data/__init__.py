"""Data sets: what they are, how they are read, written, split and synthesized."""
