"""Composed data: scenes drawn, or cut from photographs and recordings, as real files in MUSIC's public layout."""
