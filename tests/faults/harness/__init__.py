"""Kills training processes at chosen moments, resumes them, and compares what they leave behind."""
