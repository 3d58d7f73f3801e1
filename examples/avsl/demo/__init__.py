"""A local page to try a model: uploads and their limits, results, drawing, composed scenes, and the server."""
