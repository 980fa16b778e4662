"""What answers when the model does not: rules, review, skip, default."""
