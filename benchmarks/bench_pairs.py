"""ORPO and DPO beside TRL's trainers: see `beside_trl`. Each pair's rejected side is another row's answer."""


def run():
    from benchmarks.beside_trl import measured

    found = [*measured("ORPO, LoRA, batch 2", "orpo", 5e-5, 2), *measured("DPO, LoRA, batch 2", "dpo", 2e-5, 2)]
    return {"name": "pairs (peer: TRL's ORPOTrainer and DPOTrainer, their defaults)", "rows": found}


if __name__ == "__main__":
    print(run())
