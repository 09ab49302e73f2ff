"""What happened, step by step: traces. Metrics and captures belong here too."""
