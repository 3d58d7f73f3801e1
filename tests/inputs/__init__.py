"""Input classes: what every public function does with every kind of input, as tests and as tables."""
