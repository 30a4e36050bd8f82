"""RabbitMQ: the names there, a connection that confirms, and the publication of the journal."""
