"""Write a trained model as a folder that can be shared: model.safetensors, config.json, README.md.

python examples/export_model.py RUN FOLDER     evaluate.py and localize.py then take FOLDER in place of RUN
"""

import sys

if __name__ == "__main__":
    from avsl.commands.export import main

    sys.exit(main())
