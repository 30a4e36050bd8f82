"""Persistence: batches, jobs, submissions, the journal and the finished files.

Knows nothing about actors, the Videos API or RabbitMQ.
"""
