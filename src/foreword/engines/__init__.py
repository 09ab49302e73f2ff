"""Concrete engines, one file each; the file name is the key. Reached through `foreword.registry`."""
