"""Saved work: a folder of complete files, the keys under which they are found, and the plain values in them.

`saved_work`, `prune` and `SavedWork` are public. The rest is for the package itself.
"""

from sklgap.memory._code import is_library as is_library
from sklgap.memory._folder import Memory as Memory
from sklgap.memory._folder import check_memory as check_memory
from sklgap.memory._housekeeping import SavedWork, prune, saved_work
from sklgap.memory._key import Fingerprint as Fingerprint
from sklgap.memory._key import Unfollowable as Unfollowable
from sklgap.memory._key import fingerprint as fingerprint
from sklgap.memory._key import fingerprint_of_named as fingerprint_of_named
from sklgap.memory._key import key_of as key_of
from sklgap.memory._key import not_saved as not_saved
from sklgap.memory._key import surroundings as surroundings
from sklgap.memory._plain import NotPlain as NotPlain
from sklgap.memory._plain import plain as plain
from sklgap.memory._plain import unplain as unplain
from sklgap.memory._state import Graph as Graph
from sklgap.memory._state import restore_state as restore_state
from sklgap.memory._state import saved_state as saved_state

__all__ = ["SavedWork", "prune", "saved_work"]
