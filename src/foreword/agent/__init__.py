"""Agents: a goal, tools, memory, plans and budgets; and teams of them."""
