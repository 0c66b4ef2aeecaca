"""How fast the package is: every figure is a ratio to something else that ran in turns with it in the same run."""
