"""The configuration: its shape (`model`), reading it (`source`), and what a shape cannot say (`checks`)."""
