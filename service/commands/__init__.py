"""Subcommands of `kdiffe` that need the service extra."""
