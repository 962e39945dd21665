"""SFT of a LoRA adapter beside TRL's quick-start script: see `beside_trl`.

The loss of both students on rows that neither saw is measured by the plain model, one row at a time.
"""


def run():
    from benchmarks.beside_trl import measured

    found = list(measured("SFT, LoRA, batch 8", "lora", 1e-3))
    return {"name": "SFT (peer: TRL's SFTTrainer, its defaults)", "rows": found}


if __name__ == "__main__":
    print(run())
