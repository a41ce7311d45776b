"""Speed on devices that are not here: the kernels of an update, and how long they take there."""
