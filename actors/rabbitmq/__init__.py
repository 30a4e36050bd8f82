"""RabbitMQ: a confirming connection, publishing the journal, commands and their answers, and the client."""
