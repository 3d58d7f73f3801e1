"""Write the paper's tables with the paper's metrics beside ours; starts missing runs and resumes interrupted ones.

python examples/reproduce_tables.py --table 3 --quick                       composed data, minutes
python examples/reproduce_tables.py --table 3 --seeds 0 1 2 3 4             composed data, in full
python examples/reproduce_tables.py --music DIR --vggsound DIR --seeds 0 1 2  your data, all tables
"""

import sys

if __name__ == "__main__":
    from avsl.commands.tables import main

    sys.exit(main())
