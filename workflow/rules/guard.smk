# Snakemake re-runs what its records show to be stale. Results without a record, or beside a record of
# another commit's results, it would keep under parameters that are not theirs; the results' own
# identity tells.
from snakemake.persistence import RECORD_FORMAT_VERSION
from snakemake.persistence.file import FilePersistence

from eqco.store.cells import EVALUATIONS, SUMMARY, read_json, settings_of


def kept_by_mistake():
    """Result files of another configuration that Snakemake would take for this study's."""
    records = FilePersistence(nolock=True, path=Path(".snakemake").absolute())
    settings = {name: settings_of(STUDY.evaluate, name) for name in EVALUATIONS}
    expected = [
        (f"cells/{cell}/{SUMMARY}", "config_hash", hash_, [hash_])
        for cell, hash_ in CONFIG_HASH.items()
    ] + [
        (f"cells/{cell}/{name}", "settings", values, map(canonical, values.values()))
        for cell in CONFIG_HASH
        for name, values in settings.items()
    ]
    for path, key, value, params in expected:
        try:
            found = read_json(Path(path)).get(key)
        except InputError:
            continue  # missing, or for the table to complain of
        if found == value or records._filter_incomplete_keys([path]):
            continue
        record = records._read_record(path)
        usable = record and record.record_format_version == RECORD_FORMAT_VERSION
        if not usable or all(repr(param) in record.params for param in params):
            yield path


if workflow.is_main_process:
    if mistaken := next(kept_by_mistake(), None):
        raise WorkflowError(
            f"results/{STUDY.study}/{mistaken}: is a result of other parameters, and "
            "Snakemake's record of it is missing or of another commit: `dvc checkout` brings back "
            "both; else delete its folder, and the cell is run again"
        )
