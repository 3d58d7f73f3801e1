"""Prepare MUSIC for training, from downloaded videos and the public lists.

python examples/prepare_music.py --videos DIR --lists DIR --out DIR
"""

import sys

if __name__ == "__main__":
    from avsl.commands.prepare import MUSIC, main

    sys.exit(main(dataset=MUSIC))
