import os

from eqco.store.archive import KEPT


rule table:
    input:
        cells=expand(
            "cells/{cell}/{file}",
            cell=PLAN.cells_to_run,
            file=["pretrain.json", "linear.json", "knn.json"],
        ),
        kept=KEPT if PLAN.archived else [],
        published=PLAN.published if os.path.exists(PLAN.published) else [],
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
        made=touch("logs/table.made") if PLAN.archived else [],
    log:
        "logs/table.log",
    params:
        study=PLAN.study_file,
        kept=list(PLAN.archived),
    shell:
        f"python -m eqco table {{params.study:q}} --results . --published {PLAN.published}"
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
    params:
        study=PLAN.study_file,
        kept=list(PLAN.archived),
    shell:
        f"python -m eqco report {{params.study:q}} --results . --published {PLAN.published}"
        " > {log:q} 2>&1"
