"""The exchanges' programs, emulated: no binary of theirs is at hand, so each module says what its program would do."""
