"""See where a sound comes from, in your own picture or video.

python examples/localize.py RUN IMAGE SOUND               a map of every source that is found
python examples/localize.py RUN IMAGE SOUND --sources 2   of two
python examples/localize.py RUN VIDEO                     the video with a moving heatmap
"""

import sys

if __name__ == "__main__":
    from avsl.commands.localize import main

    sys.exit(main())
