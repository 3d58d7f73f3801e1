"""Prepare VGGSound for training, from downloaded videos and the public lists.

python examples/prepare_vggsound.py --videos DIR --lists DIR --out DIR
"""

import sys

if __name__ == "__main__":
    from avsl.commands.prepare import VGGSOUND, main

    sys.exit(main(dataset=VGGSOUND))
