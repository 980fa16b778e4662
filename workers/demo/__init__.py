"""`penstock demo`: the main job on an embedded broker and a simulated model."""
