"""From a text to a prefix: `compiler.py` is the contract, `compilers/` holds the methods."""
