"""The losses in five minutes, then the table of a study, then an encoder for others.

A notebook as a script. `# %%` begins a cell: VS Code, PyCharm and Spyder run cell by cell, and
jupytext makes a Jupyter notebook of it. `python docs/notebook.py` runs it whole, from the root of
the repository.
"""

# %% [markdown]
# # The losses in five minutes
#
# An anchor has a cosine similarity s0 with its positive and s_1 … s_K with its negatives. A loss
# takes nothing else. Here are 512 anchors: two views of each are near, and 255 others are
# anywhere.

# %%
import tempfile
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import ttest_1samp
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from eqco.commands.export import export
from eqco.losses import dcl, eqco_margin, info_nce, weight
from eqco.networks.encoder import Encoder
from eqco.store.cells import SavedEncoder, save_encoder
from eqco.study.grid import Grid
from eqco.study.load import load_study

torch.manual_seed(0)
view0 = F.normalize(torch.randn(512, 64))  # (B, D)
view1 = F.normalize(view0 + 0.15 * torch.randn(512, 64))  # (B, D)
others = F.normalize(torch.randn(255, 64))  # (K, D)
positive = (view0 * view1).sum(dim=1).requires_grad_()  # (B,)
negatives = (view0 @ others.T).requires_grad_()  # (B, K)
print(f"s0 is {positive.mean():.2f}, s_i is {negatives.mean():.2f} ± {negatives.std():.2f}")

# %% [markdown]
# InfoNCE, EqCo and DCL differ in one number, the margin m that is subtracted from s0: 0, τ
# log(α/K) and ∞. All three have the same gradient but for a weight W for each anchor. So the
# gradient of InfoNCE is W times that of DCL, whose W is 1.

# %%
TAU, ALPHA = 0.2, 256


def gradient(loss):
    """The gradient of the anchors' losses (B,) with respect to their negatives' similarities."""
    return torch.autograd.grad(loss.sum(), negatives)[0]  # (B, K)


of_info_nce = gradient(info_nce(positive, negatives, temperature=TAU))
of_dcl = gradient(dcl(positive, negatives, temperature=TAU))
w = weight(positive, negatives, temperature=TAU)  # (B,)
largest_error = (of_info_nce - w[:, None] * of_dcl).abs().max()
print(f"gradient of InfoNCE less W times that of DCL: at most {largest_error:.0e}")

# %% [markdown]
# With few negatives InfoNCE's weight is small: an anchor that is nearer to its positive than to
# one negative counts as solved. EqCo's margin makes up for the negatives that are not there, so
# that its W hardly depends on K.

# %%
rows = []
for k in (1, 4, 16, 64, 255):
    margins = {"InfoNCE": 0.0, "EqCo": eqco_margin(k, ALPHA, TAU), "DCL": float("inf")}
    some = negatives[:, :k]  # (B, k)
    weights = {
        name: weight(positive, some, temperature=TAU, margin=margin).mean().item()
        for name, margin in margins.items()
    }
    rows.append({"K": k, **weights})
mean_weights = pd.DataFrame(rows).set_index("K")
print(mean_weights.round(3))

# %% [markdown]
# Whether that matters for what an encoder learns is the question of this repository.
#
# # The table of a study
#
# Every study has a `table.csv`: a row per configuration and protocol, with the accuracy of each
# seed in percent. This one is SiMo on Fashion-MNIST, by a linear probe.

# %%
table = pd.read_csv("results/fashion-mnist/table.csv")
probe = table[table["protocol"] == "linear-lbfgs"]
print(probe.pivot(index="negatives", columns="margin", values="mean"))

# %% [markdown]
# A difference is taken seed by seed. Its 95 % interval is t's, of n = 5 seeds. The study's
# `comparisons.csv` has it too, with a correction for how many were asked for and the difference
# that could have been found.

# %%
values = probe.set_index(["margin", "negatives"])["values"].str.split().map(pd.to_numeric)
differences = {}
for k in (1, 4, 16, 64, 255):
    eqco_less_info_nce = values["eqco", k] - values["0", k]  # a number per seed
    low, high = ttest_1samp(eqco_less_info_nce, 0).confidence_interval()
    differences[k] = (eqco_less_info_nce.mean(), low, high)
    print(f"K = {k}: EqCo less InfoNCE {eqco_less_info_nce.mean():+.2f} [{low:+.2f}, {high:+.2f}]")

# %% [markdown]
# One learning rate for both is no fair comparison: the size of W acts as one. docs/findings.md
# has the studies that ask further.
#
# # An encoder for others
#
# A cell of a grid leaves `encoder.safetensors`. Here one of the demo's is made without training,
# as `pretrain` saves it, and exported as a program that needs torch alone: docs/encoders.md.

# %%
study = load_study(Path("params/demo.yaml"))
cell = next(iter(Grid(study).cells.values()))
encoder = Encoder(study.network, channels=1)
with tempfile.TemporaryDirectory() as folder:
    saved = SavedEncoder(study.resolve(cell.cell), "no images", encoder.state_dict())
    save_encoder(Path(folder, "encoder.safetensors"), saved)
    export(Path(folder, "encoder.safetensors"), "pt2", Path(folder, "encoder.pt2"), card=False)
    program = torch.export.load(Path(folder, "encoder.pt2")).module()

# %% [markdown]
# Its features go into whatever takes vectors. Even untrained, they know a digit's neighbours.

# %%
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # (M, 1, 8, 8)
with torch.no_grad():
    features = program((images - images.mean()) / images.std())  # (M, 256)
neighbours = KNeighborsClassifier(5).fit(features[:1297], digits.target[:1297])
accuracy = 100 * neighbours.score(features[1297:], digits.target[1297:])
print(f"kNN on the features {tuple(features.shape)} of an untrained encoder: {accuracy:.1f} %")
