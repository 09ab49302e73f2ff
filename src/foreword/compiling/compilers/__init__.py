"""Ways to turn a text into a prefix, one file each; the file name is the key. Reached through `foreword.compiling.compiler`."""
