"""The composition root: puts executor, store and tracker together and runs what a command asks for."""
