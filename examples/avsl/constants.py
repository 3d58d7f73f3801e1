"""Constants of all steps: sounds are 16 kHz mono and last 3 s; frames are squares of 224 pixels."""

SAMPLE_RATE = 16_000
SECONDS = 3.0
SAMPLES = int(SAMPLE_RATE * SECONDS)
FRAME_SIZE = 224
#: Level in dBFS below which a sound counts as silent.
SILENCE = -60.0
#: Ends the message about a public list that is missing.
WHERE_LISTS_ARE = "docs/project/links.md says where to get the lists."
