"""Try a model in a browser, on your own pictures, sounds and videos.

python examples/demo.py RUN          then open http://127.0.0.1:8321
python examples/demo.py RUN --open   opens it for you
"""

import sys

if __name__ == "__main__":
    from avsl.commands.demo import main

    sys.exit(main())
