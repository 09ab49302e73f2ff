"""Measures answers: tasks, scorers, statistics, contenders side by side, reports."""
