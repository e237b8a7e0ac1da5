rule table:
    input:
        cells=expand(
            "cells/{cell}/{file}",
            cell=CELLS,
            file=["pretrain.json", "linear.json", "knn.json"],
        ),
        published=PUBLISHED if os.path.exists(PUBLISHED) else [],
    output:
        csv="table.csv",
        markdown="table.md",
        svg="negatives.svg",
        png="negatives.png",
        metrics="metrics.json",
        provenance="provenance.json",
    log:
        "logs/table.log",
    conda:
        ENVIRONMENT
    params:
        study=STUDY_FILE,
    shell:
        f"python -m eqco table {{params.study:q}} --results . --published {PUBLISHED}"
        " > {log:q} 2>&1"
