"""What crosses the wire: declarations and codecs. The leaf of the house: imports nothing of ours, does no I/O."""
