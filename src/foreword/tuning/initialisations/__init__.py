"""Where a prefix starts, one file each; the file name is the key."""
