"""Train and evaluate sound source localization on VGGSound, or on composed scenes if you have no data yet.

python examples/train_vggsound.py                                   composed scenes, two side by side
python examples/train_vggsound.py --data-root DIR                   your VGGSound folder, mixtures of two clips
python examples/train_vggsound.py --data-root DIR --subsets single  one clip per scene
"""

import sys

if __name__ == "__main__":
    from avsl.commands.train import main

    sys.exit(main(dataset="vggsound"))
