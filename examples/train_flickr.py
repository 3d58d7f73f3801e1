"""Train and evaluate sound source localization on Flickr-SoundNet, one clip per scene, without captions or classes.

python examples/train_flickr.py --data-root DIR    the folder that prepare_flickr.py made
"""

import sys

if __name__ == "__main__":
    from avsl.commands.train import main

    sys.exit(main(dataset="flickr"))
