"""Checks of an answer that need no gold answer, one file each; see `foreword.prompting.verifier`."""
