"""Saved work: a folder of whole files, the keys they are found by, and the plain values they hold."""

from sklgap.memory._code import is_library
from sklgap.memory._folder import Memory, check_memory
from sklgap.memory._housekeeping import SavedWork, prune, saved_work
from sklgap.memory._key import Unfollowable, fingerprint, fingerprint_of_named, key_of, surroundings
from sklgap.memory._plain import NotPlain, plain, unplain
from sklgap.memory._state import Graph, restore_state, saved_state

__all__ = [
    "SavedWork",
    "prune",
    "saved_work",
    "Memory",
    "check_memory",
    "Unfollowable",
    "fingerprint",
    "fingerprint_of_named",
    "is_library",
    "key_of",
    "surroundings",
    "NotPlain",
    "plain",
    "unplain",
    "Graph",
    "restore_state",
    "saved_state",
]
