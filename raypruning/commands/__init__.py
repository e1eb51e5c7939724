"""Commands of `prune-cli` that are more than a screen of flags; `cli` puts them together."""
