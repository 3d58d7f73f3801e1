"""Localization in a user's own pictures and videos."""
