"""Whether a repainted crop may be shown."""
