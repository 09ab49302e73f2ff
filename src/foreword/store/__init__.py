"""What keeps things: named and versioned files in a folder."""
