"""All clients against one server, whose port and process are given. Run by surfaces.sh."""

import json
import sys
import traceback
from pathlib import Path

import events
import hub
import kafka
import rpc
import triton
from support import Wrong, until_ready


def main():
    port, process = int(sys.argv[1]), int(sys.argv[2])
    # The embedded model is this one.
    config = json.loads(Path("models/intent-snips/config.json").read_text())
    takes_pairs = config["type_vocab_size"] > 1
    until_ready(port)
    triton.run(port, takes_pairs)
    hub.run(port, takes_pairs)
    events.run(port)
    kafka.run(port)
    rpc.run(port)
    rpc.the_end(port, process)


try:
    main()
except Wrong as wrong:
    sys.exit(f"FAILED: {wrong}")
except Exception as error:
    # A client gave up that should not have; where, says the traceback.
    traceback.print_exc()
    sys.exit(f"FAILED: expected an answer, found {type(error).__name__}: {error}")
