"""Subcommands of `kdiffe` that need the training extra."""
