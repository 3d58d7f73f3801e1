"""What every step agrees on: sounds are 16 kHz mono, 3 s of them; frames are square, 224 pixels."""

SAMPLE_RATE = 16_000
SECONDS = 3.0
FRAME_SIZE = 224
