"""Runs commands on hostile input, each in a forked process with limits."""
