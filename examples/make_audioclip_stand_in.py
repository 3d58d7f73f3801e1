"""Write a file of the form of AudioCLIP's checkpoint with random weights, to try out all steps without it.

python examples/make_audioclip_stand_in.py FILE.pt          all sizes as published, 537 MB
python examples/make_audioclip_stand_in.py FILE.pt --small  small networks, 12 MB
"""

import sys

if __name__ == "__main__":
    from avsl.commands.audioclip_stand_in import main

    sys.exit(main())
