"""Contenders; each file is one, and its name (hyphens for underscores) is the key."""
