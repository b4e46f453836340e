"""Turns a point into calls of a kernel on rotating buffers, by table."""
