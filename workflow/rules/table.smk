rule table:
    input:
        cells=expand(
            "cells/{cell}/{file}",
            cell=[cell for cell in CELLS if cell not in STAND_INS],
            file=["pretrain.json", "linear.json", "knn.json"],
        ),
        kept=KEPT if STAND_INS else [],
        published=PUBLISHED if os.path.exists(PUBLISHED) else [],
    output:
        csv="table.csv",
        markdown="table.md",
        svg="negatives.svg",
        png="negatives.png",
        metrics="metrics.json",
        provenance="provenance.json",
        # Not in git: a clone makes a table from what was kept once, and does not believe its own.
        made=touch("logs/table.made") if STAND_INS else [],
    log:
        "logs/table.log",
    conda:
        ENVIRONMENT
    params:
        study=STUDY_FILE,
        kept=list(STAND_INS),
    shell:
        f"python -m eqco table {{params.study:q}} --results . --published {PUBLISHED}"
        " > {log:q} 2>&1"
