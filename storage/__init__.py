"""What lasts: batches, jobs, submissions, the journal and the finished files.

Knows nothing of actors, of Sora or of RabbitMQ.
"""
