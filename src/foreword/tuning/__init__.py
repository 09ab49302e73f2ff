"""Learns prefixes: data in, `Prefix` out. The weights of the model are never touched."""
