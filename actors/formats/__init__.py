"""The formats that batches are written in: each file reads one family of them, and says what is wrong in its words."""
