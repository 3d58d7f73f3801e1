"""Constants of all steps: sounds are 16 kHz mono and last 3 s; frames are squares of 224 pixels."""

SAMPLE_RATE = 16_000
SECONDS = 3.0
FRAME_SIZE = 224
