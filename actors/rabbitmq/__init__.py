"""RabbitMQ: a connection that confirms, the publication of the journal, commands and their answers, and the client."""
