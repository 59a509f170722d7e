"""Finders of faces, eyes and hands."""
