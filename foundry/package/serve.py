"""llama.cpp's OpenAI-compatible server on loopback, as a process of its own: a file that makes it abort ends only that.

`python -m foundry.package.serve '{"model": …, "context": …, "threads": …, "adapter": …}'` prints one line with the
address and serves until its standard input is closed, so that it never outlives who started it.
"""

import json
import sys

ADDRESS = "foundry-address "


def main(given: str) -> int:
    """Load the model and serve; 1 if llama.cpp does not take it."""
    import xllamacpp

    settings = json.loads(given)
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.n_ctx = settings["context"]
    params.n_parallel = 1
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.cpuparams.poll = params.cpuparams_batch.poll = 0  # waiting threads sleep: others use this machine too
    params.use_jinja = True
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    params.port = 0
    params.ui = False
    if settings["adapter"]:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(settings["adapter"], 1.0)]
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{ADDRESS}{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
