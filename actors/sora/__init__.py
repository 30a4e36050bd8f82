"""The Videos API: its client, its wire format, the protocol of submitting, and a simulator."""
