"""The Videos API: its client, its wire format, and the protocol of submitting."""
