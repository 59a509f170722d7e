"""How fast and how large: every figure the documentation quotes is taken here."""
