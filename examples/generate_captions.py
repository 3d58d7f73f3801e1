"""Caption the training frames of a data folder with a multimodal language model.

python examples/generate_captions.py --data-root DIR --model OpenGVLab/InternVL3-8B-hf
python examples/generate_captions.py --data-root DIR --model NAME --server http://localhost:8000/v1
"""

import sys

if __name__ == "__main__":
    from avsl.commands.caption import main

    sys.exit(main())
