"""What requests cost: prices and cost per success."""
