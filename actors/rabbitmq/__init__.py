"""RabbitMQ: commands in, events out."""
