"""Ways to ask, one file each; see `foreword.prompting.strategy`."""
