"""Prompts as people write them: styles around them, weights inside them, windows of tokens."""
