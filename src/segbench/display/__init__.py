"""How scores, tables and pictures are shown."""
