"""A trained model at work: on test sets, and on a user's own pictures and videos."""
