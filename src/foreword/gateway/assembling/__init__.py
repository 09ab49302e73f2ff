"""What stands before the question: prompt, history, passages and tools, under a budget of tokens."""
