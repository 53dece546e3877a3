"""Do the tests notice when the core is wrong? Each mutant is the core with one small mistake in it."""
