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
        csv=report(
            "table.csv",
            category="Accuracy",
            labels={"shown": "table"},
            caption="../report/table.rst",
        ),
        markdown="table.md",
        summary="summary.md",
        svg=report(
            "negatives.svg",
            category="Accuracy",
            labels={"shown": "accuracy against K"},
            caption="../report/negatives.rst",
        ),
        png="negatives.png",
        metrics="metrics.json",
        provenance=report(
            "provenance.json",
            category="Provenance",
            labels={"shown": "revision, versions, hardware, parameters"},
            caption="../report/provenance.rst",
        ),
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


rule report:
    input:
        rules.table.input,
    output:
        report(
            "report.html",
            category="Accuracy",
            labels={"shown": "all of the study in one page"},
            caption="../report/report.rst",
        ),
    log:
        "logs/report.log",
    conda:
        ENVIRONMENT
    params:
        study=STUDY_FILE,
        kept=list(STAND_INS),
    shell:
        f"python -m eqco report {{params.study:q}} --results . --published {PUBLISHED}"
        " > {log:q} 2>&1"
