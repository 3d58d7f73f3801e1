"""Composed scenes, from drawings or from photographs and recordings, as files in the public layout of MUSIC."""
