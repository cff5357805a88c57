"""The model in force, followed by the log of interactions and swapped for newer versions."""
