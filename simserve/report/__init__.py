"""What people look at: a run as text."""
