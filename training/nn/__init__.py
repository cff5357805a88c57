"""Differentiable operators, one a file: formula and shapes in the docstring, no files, no settings."""
