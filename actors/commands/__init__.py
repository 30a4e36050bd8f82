"""Commands from RabbitMQ: read, obeyed through BatchService, answered."""
