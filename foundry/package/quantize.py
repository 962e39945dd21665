"""llama.cpp's quantiser as a process: `python -m foundry.package.quantize FILE TO KIND THREADS [IMATRIX]`."""

import ctypes
import sys
from pathlib import Path
from typing import Any


def main(file: str, to: str, kind: str, threads: str, imatrix: str = "") -> int:
    """Quantise; returns llama.cpp's own status, 0 if it went well."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.nthread = int(threads)
    kept = _importance(Path(imatrix)) if imatrix else None
    if kept:
        params.imatrix = kept[0]
    return int(llama_cpp.llama_model_quantize(file.encode(), to.encode(), params))


def _importance(file: Path) -> tuple[Any, list[Any]]:
    """The matrix as llama.cpp takes it, with the arrays that must live as long; the last entry is empty."""
    from llama_cpp import llama_model_imatrix_data
    from safetensors.numpy import load_file

    found = load_file(file)
    entries = (llama_model_imatrix_data * (len(found) + 1))()
    for entry, (name, values) in zip(entries, sorted(found.items()), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    return entries, list(found.values())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
