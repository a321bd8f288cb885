"""What a user starts: one file for each command, with its settings and one function."""
