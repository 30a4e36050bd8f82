"""Batches: requests and answers, states and moves, and each command as one transaction."""
