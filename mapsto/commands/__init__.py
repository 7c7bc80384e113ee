"""The commands of `mapsto`, a file for each family; `mapsto.cli` imports the one that runs."""
