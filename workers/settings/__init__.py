"""The configuration: its shape (`model`), reading it strictly (`source`), and checking what a shape cannot say (`checks`)."""
