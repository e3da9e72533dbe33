"""One file per subcommand: read arguments, call down, render. No algorithm."""
