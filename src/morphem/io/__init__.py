"""Files of other programs and ours: bytes to plain tables, no physics."""
