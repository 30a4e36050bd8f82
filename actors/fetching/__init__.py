"""Gets finished files into a folder: from a folder, a bucket or the service that has them, whole or not at all."""
