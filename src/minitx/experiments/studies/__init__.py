"""What is said of recurrence, attention and size, each put to the test."""
