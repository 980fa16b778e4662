"""What a model reads where something was left out."""

MARK = "\n[...]\n"
