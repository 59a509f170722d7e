"""The engine: denoises the jobs of all callers together, step by step."""
