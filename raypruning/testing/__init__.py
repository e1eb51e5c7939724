"""Contract suites that built-ins and plugins pass."""
