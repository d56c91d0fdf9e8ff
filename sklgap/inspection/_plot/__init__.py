"""Displays, which hold numbers and draw them."""
