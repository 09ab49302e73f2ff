"""Finding what a text has to do with another: embedders, and what is built on them."""
