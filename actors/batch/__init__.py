"""What a batch is: what is asked for and answered, its states and moves, and each command as one transaction."""
