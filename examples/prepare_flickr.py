"""Prepare Flickr-SoundNet for evaluation and training, from unpacked archives.

python examples/prepare_flickr.py --archive DIR --out DIR                          the 250 test clips
python examples/prepare_flickr.py --archive DIR DIR --train-list FILE --out DIR    training clips as well
"""

import sys

if __name__ == "__main__":
    from avsl.commands.prepare_flickr import main

    sys.exit(main())
