"""What is looked at to say whether an answer is good: its form, its words against a reference, and a judge's opinion."""
