"""Prompts: templates with variables and examples, and where they are kept."""
