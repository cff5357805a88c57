"""The models: KDiffE and its peers."""
