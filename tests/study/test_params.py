"""Study files: what is allowed, and the one line that each mistake gets."""

import json
import math
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, TINY, cells, with_values
from pydantic import BaseModel

from eqco.errors import InputError
from eqco.runtime.files import canonical
from eqco.study.axes import With
from eqco.study.cell import Cell
from eqco.study.fields import Section
from eqco.study.load import load_study, parse_study, schema
from eqco.study.study import config_hash

STUDIES = sorted(ROOT.glob("params/*.yaml"))
NOTHING: dict = {}

# change of tests/tiny.yaml -> what the message says after "tiny.yaml: "
BAD = [
    ({"bogus": 1}, "unknown key 'bogus'; allowed: study, data, augment"),
    ({"pretrain.epoch": 1}, "pretrain: unknown key 'epoch'; allowed: epochs, batch"),
    ({"grid.0.seed": [1]}, "grid.0: unknown key 'seed'; allowed: methods, negatives"),
    ({"data.size": 8}, "data: unknown key 'size'; allowed: kind"),
    ({"study": ...}, "study: is missing"),
    ({"pretrain.lr": ...}, "pretrain.lr: is missing"),
    ({"grid": ...}, "grid: is missing"),
    ({"grid.0.seeds": ...}, "grid.0.seeds: is missing"),
    ({"pretrain.epochs": "many"}, "pretrain.epochs: 'many': input should be a valid integer"),
    ({"pretrain.epochs": 1.5}, "pretrain.epochs: 1.5: input should be a valid integer"),
    ({"pretrain.epochs": True}, "pretrain.epochs: True: input should be a valid integer"),
    ({"pretrain.epochs": [1]}, r"pretrain.epochs: \[1\]: input should be a valid integer"),
    ({"pretrain.epochs": 0}, "pretrain.epochs: 0: input should be greater than or equal to 1"),
    ({"pretrain.batch": 1}, "pretrain.batch: 1: input should be greater than or equal to 2"),
    ({"pretrain.batch": 2000}, "pretrain.batch: 2000: the data has 1297 training images"),
    ({"pretrain.lr": 0}, "pretrain.lr: 0: input should be greater than 0"),
    ({"pretrain.lr": "fast"}, "pretrain.lr: 'fast': input should be a valid number"),
    ({"pretrain.lr": math.nan}, "pretrain.lr: nan: input should be a finite number"),
    ({"pretrain.lr": math.inf}, "pretrain.lr: inf: input should be a finite number"),
    ({"pretrain.ema": 1}, "pretrain.ema: 1: input should be less than 1"),
    ({"pretrain.momentum": -1}, "pretrain.momentum: -1: input should be greater than or equal"),
    ({"pretrain.sampling": "all"}, "pretrain.sampling: 'all': input should be 'shared' or"),
    ({"pretrain": 3}, "pretrain: 3: input should be a valid dictionary"),
    ({"alpha": 0}, "alpha: 0: input should be greater than 0"),
    ({"alpha": -256}, "alpha: -256: input should be greater than 0"),
    ({"alpha": None}, "alpha: None: input should be a valid number"),
    ({"temperature": 0}, "temperature: 0: input should be greater than 0"),
    ({"temperature": -0.2}, "temperature: -0.2: input should be greater than 0"),
    ({"study": "a/b"}, "study: 'a/b': string should match pattern"),
    ({"study": ".."}, r"study: '\.\.': string should match pattern"),
    ({"study": "../up"}, r"study: '\.\./up': string should match pattern"),
    ({"study": ""}, "study: '': string should match pattern"),
    ({"study": "a b"}, "study: 'a b': string should match pattern"),
    ({"study": "$(id)"}, r"study: '\$\(id\)': string should match pattern"),
    ({"study": "a\n"}, "study: 'a\\\\n': string should match pattern"),
    ({"study": "x" * 65}, "study: 'xxx.*at most 64"),
    ({"study": 7}, "study: 7: input should be a valid string"),
    ({"data.kind": "mnist"}, "data: .*'mnist'.*'digits', 'fashion-mnist', 'image-folder'"),
    ({"data": {}}, "data: unable to extract tag using discriminator 'kind'"),
    ({"data": "digits"}, "data: 'digits': "),
    (
        {"data": {"kind": "fashion-mnist", "train_images": 60_001}},
        "data.train_images: 60001: input should be less than or equal to 60000",
    ),
    (
        {"data": {"kind": "torchvision", "name": "mnist"}},
        "data.name: 'mnist': input should be 'cifar10', 'cifar100', 'stl10', 'svhn' or 'imagen",
    ),
    ({"data": {"kind": "torchvision"}}, "data.name: is missing$"),
    (
        {"data": {"kind": "torchvision", "name": "svhn", "size": 48}},
        "data: size: 48: must be 32, as svhn's images are",
    ),
    (
        {"data": {"kind": "torchvision", "name": "cifar10", "path": "x"}},
        "data: unknown key 'path'; allowed: kind, validation, name, root, size",
    ),
    ({"data.validation": 0}, "data.validation: 0: input should be greater than or equal to 1"),
    ({"data.validation": 1297}, "data.validation: 1297: the data has 1297 training images"),
    ({"data.validation": 1100}, "pretrain.batch: 256: the data has 197 training images"),
    (
        {"data": {"kind": "image-folder", "name": "../x", "path": "p", "size": 32}},
        r"data.name: '\.\./x': string should match pattern",
    ),
    (
        {"data": {"kind": "image-folder", "name": "x", "path": "p", "size": 2}},
        "data.size: 2: input should be greater than or equal to 4",
    ),
    ({"data": {"kind": "image-folder", "name": "x", "size": 32}}, "data.path: is missing"),
    ({"augment.crop": [0.5]}, r"augment.crop: \[0.5\]: list should have at least 2 items"),
    ({"augment.crop": [0.9, 0.5]}, r"augment: crop must be \[low, high\]"),
    ({"augment.crop": [0.5, 1.5]}, r"augment: crop must be \[low, high\] with high at most 1"),
    ({"augment.flip": 1.5}, "augment.flip: 1.5: input should be less than or equal to 1"),
    ({"augment.jitter": {"hue": 0.1}}, "augment.jitter.p: is missing"),
    ({"augment.jitter": {"p": 1, "hue": 0.6}}, "augment.jitter.hue: 0.6: input should be less"),
    ({"augment.blur": {"p": 1, "kernel": 4}}, "augment.blur: kernel must be odd"),
    (
        {"augment.blur": {"p": 1, "kernel": 3, "sigma": [2, 1]}},
        r"augment.blur: sigma must be \[low, high\]",
    ),
    (
        {"network.backbone": "vit"},
        "network.backbone: 'vit': must be one of conv5, resnet18, resnet50 or timm/<model>, as",
    ),
    ({"network.backbone": "timm/a.b"}, "network.backbone: 'timm/a.b': must be one of conv5, res"),
    ({"network.stride": 3}, "network.stride: 3: input should be 1 or 2"),
    ({"network.projector": []}, r"network.projector: \[\]: list should have at least 1"),
    ({"network.batch_norm_groups": 7}, "pretrain.batch: 256: must be a multiple of batch_norm"),
    (
        {"data": {"kind": "jpeg-folder", "name": "x", "path": "x", "size": 300}},
        "data: size: 300: must be at most short_side, 256",
    ),
    ({"grid.0.batches": [128, 2000]}, "grid.0.batches.1: 2000: the data has 1297 training"),
    ({"grid.0.batches": [8]}, "grid.0.negatives.1: 16: simo allows 1 to 7, the negatives"),
    ({"grid.0.lrs": [0]}, "grid.0.lrs.0: 0: input should be greater than 0"),
    ({"grid.0.weight_decays": [-1]}, "grid.0.weight_decays.0: -1: input should be greater than or"),
    ({"grid.0.with": 3}, "grid.0.with: 3: input should be a valid dictionary"),
    ({"grid.0.with": []}, r"grid.0.with: \[\]: list should have at least 1 item"),
    ({"grid.0.with": {"ema": [0]}}, "grid.0.with: unknown key 'ema'; allowed: alpha, temperature"),
    (
        {"grid.0.with": {"pretrain.ema": 0.9}},
        "grid.0.with.pretrain.ema: 0.9: input should be a valid list",
    ),
    (
        {"grid.0.with": [{}, {"pretrain.ema": [0.9, 1]}]},
        "grid.0.with.1.pretrain.ema.1: 1: input should be less than 1",
    ),
    ({"grid.0.with": {"pretrain.ema": []}}, r"grid.0.with.pretrain.ema: \[\]: list should have"),
    (
        {"grid.0.with": {"augment.blur.p": [1]}},
        "grid.0.with.augment.blur.p.0: 1.0: the recipe has no augment.blur",
    ),
    (
        {"grid.0.with": {"augment.crop": [[0.5, 1], [0.9, 0.5]]}},
        r"grid.0.with.augment.crop.1: \(0.9, 0.5\): crop must be \[low, high\]",
    ),
    (
        {"grid.0.with": {"pretrain.batch": [256, 2000]}},
        "grid.0.with.pretrain.batch.1: 2000: the data has 1297 training images",
    ),
    (
        {"grid.0.with": [{"network.batch_norm_groups": [2, 7]}]},
        "pretrain.batch: 256: must be a multiple of batch_norm_groups, 7",
    ),
    (
        {"grid.0.with": {"pretrain.symmetric": [False, True]}},
        "grid.0.methods.0: simo: pretrain.symmetric is a choice of moco",
    ),
    (
        {"grid.0.with": {"pretrain.queue": [16, 8]}, "grid.0.methods": ["moco"]},
        "grid.0.negatives.1: 16: moco allows 1 to 8",
    ),
    (
        {"grid.0.lrs": [0.1], "grid.0.with": {"pretrain.lr": [0.2]}},
        "grid.0.with.pretrain.lr: 0.2: grid.0.lrs lists this key already",
    ),
    (
        {"grid.0.with": {"loss.inter": [1, 2]}},
        "grid.0: method~simo/.*/inter~2/seed~0: is in grid.0 already",
    ),
    ({"evaluate.knn.ks": [0]}, "evaluate.knn.ks.0: 0: input should be greater than or equal to 1"),
    (
        {"evaluate.key_encoder": True, "grid.0.methods": ["simclr"]},
        "grid.0.methods.0: simclr: evaluate.key_encoder is a choice of moco, simo, simmoco alone",
    ),
    ({"grid.0.losses": ["triplet"]}, "grid.0.losses.0: 'triplet': input should be 'info-nce'"),
    ({"grid.0.losses": ["dclw"]}, r"grid.0.losses.0: dclw: has no margin: margins must be \[0\]"),
    (
        {"grid.0.losses": ["dcl-rolled", "dcl-constant"]},
        r"grid.0.losses.1: dcl-constant: has no margin: margins must be \[0\]",
    ),
    ({"loss": {"constant": 0}}, "loss.constant: 0: input should be greater than 0"),
    (
        {"loss": {"scalar_negatives": 0}},
        "loss.scalar_negatives: 0: input should be greater than or",
    ),
    (
        {"grid.0.losses": ["info-nce", "dcl-by-scalar-negatives"]},
        "grid.0.losses.1: dcl-by-scalar-negatives: needs loss.scalar_negatives, K_s",
    ),
    (
        {"grid.0.losses": ["dcl-by-scalar-negatives"], "loss": {"scalar_negatives": 256}},
        "loss.scalar_negatives: 256: simo allows 1 to 255, the negatives to draw from",
    ),
    (
        {
            "grid.0.losses": ["dcl-by-scalar-negatives"],
            "grid.0.with": {"loss.scalar_negatives": [4, 256]},
        },
        "grid.0.with.loss.scalar_negatives.1: 256: simo allows 1 to 255",
    ),
    *(
        (
            {
                "grid.0.losses": ["dcl-by-scalar-negatives"],
                "grid.0.methods": ["moco"],
                "grid.0.negatives": negatives,
                "loss": {"scalar_negatives": 4},
                "pretrain.queue": queue,
            },
            "grid.0.methods.0: moco: dcl-by-scalar-negatives needs a pretrain.queue longer than K",
        )
        for negatives, queue in (([8], 8), ([2], 4), ([8], None), ("all", 8))
    ),
    ({"grid.0.methods": ["nnclr"]}, "grid.0.methods.0: nnclr: needs pretrain.queue"),
    (
        {"grid.0.methods": ["moco"], "pretrain.queue": 8},
        "grid.0.negatives.1: 16: moco allows 1 to 8",
    ),
    (
        {"pretrain.symmetric": True},
        "grid.0.methods.0: simo: pretrain.symmetric is a choice of moco",
    ),
    (
        {"pretrain.batch_norm_per_view": True},
        "grid.0.methods.0: simo: pretrain.batch_norm_per_view is a choice of simclr alone",
    ),
    ({"pretrain.queue": 0}, "pretrain.queue: 0: input should be greater than or equal to 1"),
    ({"loss": {"inter": 0}}, "loss.inter: 0: input should be greater than 0"),
    ({"loss": {"bias": math.inf}}, "loss.bias: inf: input should be a finite number"),
    (
        {"grid.0.losses": ["info-nce", "siglip"], "grid.0.margins": [0, "inf"]},
        "grid.0.margins.1: inf: siglip needs margins that are finite",
    ),
    ({"loss": {"gamma": 0}}, "loss.gamma: 0: input should be greater than 0"),
    (
        {"grid.0.losses": ["sogclr"]},
        r"grid.0.losses.0: sogclr: has no margin: margins must be \[0\]",
    ),
    ({"loss": {"slope": 1.1}}, "loss.slope: 1.1: input should be less than or equal to 1"),
    ({"loss": {"threshold": -1}}, "loss.threshold: -1: input should be greater than or equal to 0"),
    ({"grid": []}, r"grid: \[\]: list should have at least 1 item"),
    ({"grid": {}}, r"grid: input should be a valid list"),
    ({"grid.0.methods": []}, r"grid.0.methods: \[\]: list should have at least 1 item"),
    (
        {"grid.0.methods": ["moco-v9"]},
        "grid.0.methods.0: 'moco-v9': must be one of simclr, moco, simo,",
    ),
    ({"grid.0.methods": "simo"}, "grid.0.methods: 'simo': input should be a valid list"),
    ({"grid.0.negatives": []}, r"grid.0.negatives: \[\]: list should have at least 1 item"),
    ({"grid.0.negatives": [0]}, "grid.0.negatives.0: 0: input should be greater than or equal"),
    ({"grid.0.negatives": [-4]}, "grid.0.negatives.0: -4: input should be greater than or eq"),
    ({"grid.0.methods": ["simclr"], "grid.0.negatives": [511]}, "grid.0.negatives.0: 511: simclr"),
    ({"grid.0.negatives": [1, 256]}, "grid.0.negatives.1: 256: simo allows 1 to 255, the"),
    ({"grid.0.negatives": ["16"]}, "grid.0.negatives.0: '16': input should be a valid integer"),
    ({"grid.0.margins": []}, r"grid.0.margins: \[\]: list should have at least 1 item"),
    ({"grid.0.margins": ["eqko"]}, "grid.0.margins.0: 'eqko': must be a number, 'eqco' or 'inf'"),
    ({"grid.0.margins": [math.nan]}, "grid.0.margins.0: nan: must be a number"),
    ({"grid.0.margins": [-math.inf]}, "grid.0.margins.0: -inf: must be a number"),
    ({"grid.0.margins": [True]}, "grid.0.margins.0: True: must be a number"),
    ({"grid.0.margins": [None]}, "grid.0.margins.0: None: must be a number"),
    ({"grid.0.negatives": "16"}, "grid.0.negatives: '16': input should be 'all'"),
    ({"grid.0.negatives": 16}, "grid.0.negatives: 16: input should be a valid list"),
    ({"grid.0.negatives": ["all"]}, "grid.0.negatives.0: 'all': input should be a valid integer"),
    (
        {"grid.0.negatives": "all", "grid.0.methods": ["simo", "moco"]},
        "grid.0.negatives: all: moco needs pretrain.queue, its length",
    ),
    ({"pretrain.lr_per": 0}, "pretrain.lr_per: 0: input should be greater than or equal to 1"),
    ({"grid.0.seeds": []}, r"grid.0.seeds: \[\]: list should have at least 1 item"),
    ({"grid.0.seeds": [-1]}, "grid.0.seeds.0: -1: input should be greater than or equal to 0"),
    ({"grid.0.seeds": [2**32]}, "grid.0.seeds.0: 4294967296: input should be less than"),
    ({"grid.0.seeds": 3}, "grid.0.seeds: 3: input should be a valid list"),
    ({"grid.0.alphas": [0]}, "grid.0.alphas.0: 0: input should be greater than 0"),
    ({"grid.0.temperatures": [-1]}, "grid.0.temperatures.0: -1: input should be greater than 0"),
    ({"grid.0.seeds": [1, 1]}, r"grid.0: method~simo/.*/seed~1: is in grid.0 already"),
    ({"grid.0.alphas": [16, 256]}, "grid.0: .*margin~0/alpha~256/seed~0: is in grid.0 already"),
    ({"evaluate.knn.k": 0}, "evaluate.knn.k: 0: input should be greater than or equal to 1"),
    ({"evaluate.linear.lr": -1}, "evaluate.linear.lr: -1: input should be greater than 0"),
    ({"evaluate.svm": {}}, "evaluate: unknown key 'svm'; allowed: linear_lbfgs, linear, knn"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[str(change)[:60] for change, _ in BAD])
def test_a_mistake_is_one_line_that_names_file_key_value_and_what_is_allowed(
    tiny_values, change, message
):
    with pytest.raises(InputError, match=rf"^tiny\.yaml: {message}") as error:
        parse_study(with_values(tiny_values, change), "tiny.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "is not YAML: while parsing"),
        ("", "a study is a mapping of keys"),
        ("- a\n- b", "a study is a mapping of keys"),
        ("!!python/object/apply:os.system ['exit']", "is not YAML: could not determine"),
        (b"\xff\xfe\xfa", "is not YAML"),
    ],
)
def test_a_file_that_is_no_study(tmp_path, content, message):
    path = tmp_path / "x.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        load_study(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"no\.yaml: cannot be read: No such file"):
        load_study(tmp_path / "no.yaml")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_of_the_project_are_valid(path):
    study = load_study(path)
    assert study.study == path.stem
    assert cells(study)


def test_the_demo_is_the_grid_of_the_question():
    study = load_study(ROOT / "params" / "demo.yaml")
    assert len(cells(study)) == 50
    assert study.alpha == 256


def test_the_schema_is_generated_from_the_models():
    """Stale? `make schema`."""
    assert (ROOT / "params" / "schema.json").read_text() == schema()


def test_the_schema_accepts_the_studies_and_refuses_an_unknown_key():
    from jsonschema import Draft202012Validator

    generated = json.loads(schema())
    Draft202012Validator.check_schema(generated)
    validator = Draft202012Validator(generated)
    for path in [*STUDIES, TINY]:
        values = yaml.safe_load(path.read_text())
        assert validator.is_valid(values), path
        assert not validator.is_valid({**values, "bogus": 1}), path


def sections(section: type[BaseModel] = Section) -> set[type[BaseModel]]:
    """Every section that a study may have, at any depth."""
    below = section.__subclasses__()
    return {s for s in below if s not in (Cell, With)}.union(*(sections(s) for s in below))


def test_every_key_is_explained():
    """In the schema for editors, and in docs/keys.md, which is made of it."""
    for model in sections():
        for name, field in model.model_fields.items():
            assert field.description or name == "kind", f"{model.__name__}.{name}"


def test_numbers_that_yaml_takes_for_text(study_with):
    assert study_with({"pretrain.lr": "1e-4"}).pretrain.lr == 1e-4
    assert study_with({"grid.0.margins": ["inf"]}).grid[0].margins == [math.inf]
    assert study_with({"grid.0.margins": [math.inf]}).grid[0].margins == [math.inf]


def test_the_hash_is_of_what_the_pretraining_depends_on(study_with):
    def hashes(changes: dict) -> list[str]:
        study = study_with(changes)
        return [config_hash(study.resolve(cell)) for cell in cells(study).values()]

    before = hashes(NOTHING)
    assert len(set(before)) == len(before) == 8
    assert hashes({"study": "other", "evaluate": {}}) == before
    for change in ({"pretrain.lr": 0.02}, {"augment.flip": 0.5}, {"temperature": 0.1}):
        assert not set(hashes(change)) & set(before)
    # α is read by EqCo's margin alone
    changed = hashes({"alpha": 512})
    assert [a == b for a, b in zip(before, changed, strict=True)] == [True, True, False, False] * 2


def test_where_the_files_lie_is_not_what_they_are(study_with):
    def resolved(path: str) -> str:
        folder = {"kind": "image-folder", "name": "x", "path": path, "size": 32}
        study = study_with({"data": folder})
        return canonical(study.resolve(next(iter(cells(study).values()))))

    assert resolved("here") == resolved("there")


def test_a_configuration_survives_json(study_with):
    study = study_with({"grid.0.margins": [math.inf, 0.5, "eqco"]})
    for cell in cells(study).values():
        assert Cell.model_validate(json.loads(json.dumps(study.resolve(cell)["cell"]))) == cell


def test_parsing_a_study_imports_no_torch():
    import subprocess
    import sys

    code = "import sys, eqco.study.grid, eqco.commands.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path("/"), check=False).returncode == 0
