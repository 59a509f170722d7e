"""Models: which there are (catalogue), where their files lie (store), how they are loaded."""
