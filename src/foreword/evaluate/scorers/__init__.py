"""Scorers; the file name is the key. See `foreword.evaluate.scorer` for what one is."""
