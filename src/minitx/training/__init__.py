"""Launch -> worker -> train -> its callbacks -> task -> loss, optimizer, schedule."""
