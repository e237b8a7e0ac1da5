"""From image files to the views of every step."""
