"""One video: submitted, polled and downloaded; and admission, which decides when it may start."""
