"""Evaluate a trained model on any test set, by any protocols, with chance levels.

python examples/evaluate.py RUN                                               the test scenes of the run
python examples/evaluate.py RUN --data-root DIR --protocol paper,noprior      your folder, two protocols
python examples/evaluate.py RUN --dataset vggsound --data-root DIR --subsets single duet trio --sources found --time
"""

import sys

if __name__ == "__main__":
    from avsl.commands.evaluate import main

    sys.exit(main())
