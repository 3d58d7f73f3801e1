"""Show where a sound comes from, in your own picture or video.

python examples/localize.py RUN IMAGE SOUND               one map per source that the model finds
python examples/localize.py RUN IMAGE SOUND --sources 2   one map for each of two sources
python examples/localize.py RUN VIDEO                     the video with a moving heatmap
"""

import sys

if __name__ == "__main__":
    from avsl.commands.localize import main

    sys.exit(main())
