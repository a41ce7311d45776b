"""The schema, and how a config is composed, checked and saved."""
