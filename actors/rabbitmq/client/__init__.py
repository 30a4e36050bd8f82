"""The client for applications: commands over RabbitMQ, and the events of a batch. Needs no database of its own."""
