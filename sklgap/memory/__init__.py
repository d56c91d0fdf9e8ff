"""Saved work: a folder of whole files, the keys they are found by, and the plain values they hold."""

from sklgap.memory._folder import Memory, check_memory
from sklgap.memory._key import fingerprint, key_of, surroundings
from sklgap.memory._plain import NotPlain, plain, unplain

__all__ = ["Memory", "check_memory", "fingerprint", "key_of", "surroundings", "NotPlain", "plain", "unplain"]
