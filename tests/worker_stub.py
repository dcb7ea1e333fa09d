"""What execnet starts for `tests.workers`: asks the nursery for a worker on its own standard streams, and waits for it.

Arguments: the address of the nursery, then those of an interpreter, `-u -c code`.
"""

import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as nursery:
    nursery.connect(sys.argv[1])
    socket.send_fds(nursery, [sys.argv[-1].encode()], [0, 1, 2])
    for stream in (0, 1):
        os.close(stream)
    # The worker holds the other end as long as it lives.
    nursery.recv(1)
