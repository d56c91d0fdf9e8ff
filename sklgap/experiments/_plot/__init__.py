"""Displays: they hold numbers and draw them."""
