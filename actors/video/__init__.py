"""One video: submitted, watched and fetched, and when it may start."""
