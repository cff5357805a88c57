"""Subcommands of `kdiffe` that need the kernel alone."""
