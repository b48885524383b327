"""A person at a browser: who is asked to log in, where, and what they bring back."""
