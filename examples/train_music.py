"""Train and evaluate sound source localization on MUSIC, or on composed scenes if you have no data yet.

python examples/train_music.py                    composed scenes, two CPU cores, a few minutes
python examples/train_music.py --data-root DIR    your MUSIC folder
python examples/train_music.py --media DIR        scenes composed from photographs and recordings
python examples/train_music.py --soundfont FILE   composed scenes with recorded instruments
"""

import sys

if __name__ == "__main__":
    from avsl.commands.train import main

    sys.exit(main())
