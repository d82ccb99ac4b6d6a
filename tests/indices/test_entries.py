"""Indices against public libraries; where one is wrong, the name of the test says so, and the truth is
asserted.

Which versions, and how each is called: `pytorch-cka` 1.1.3 (`import cka`), `ckatorch` 1.0.3, `torch-cka`
0.21, `rsatoolbox` 0.3.2, `cca-zoo` 4.0.1, scikit-learn and SciPy.
"""

from __future__ import annotations

import warnings

import cka as pytorch_cka
import numpy as np
import pytest
import scipy.spatial
import torch
import torch_cka
from cca_zoo.linear import CCA
from ckatorch.cka import CKA as TorchCKA
from ckatorch.core import cka_base, cka_batch
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import calc_rdm, compare
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from suture import indices
from suture.indices import INDICES, FlatKernels, Needs
from tests.support import references

Matrices = tuple[Tensor, Tensor]


def cka_minibatch(kernels: FlatKernels, i: int = 0, j: int = 0) -> float:
    return INDICES["cka_minibatch"](kernels.get_kernels(i, j)[Needs.KERNELS]).value


def shared(n: int, p: int, q: int, seed: int = 0) -> Matrices:
    """Two matrices that share three directions, with spread of about 2."""
    g = torch.Generator().manual_seed(seed)
    common = torch.randn(n, 3, generator=g, dtype=torch.float64)
    x, y = (common @ torch.randn(3, w, generator=g, dtype=torch.float64)
            + torch.randn(n, w, generator=g, dtype=torch.float64) for w in (p, q))
    return x, y


def shift(pair: Matrices, spreads: float) -> Matrices:
    """Column means of so many standard deviations, different ones."""
    g = torch.Generator().manual_seed(99)
    x, y = (m + spreads * m.std() * torch.randn(m.shape[1], generator=g, dtype=torch.float64) for m in pair)
    return x, y


def deficient(rank: int, pair: Matrices) -> Matrices:
    """The source cut to so many directions."""
    g = torch.Generator().manual_seed(98)
    x, y = pair
    return x[:, :rank] @ torch.randn(rank, x.shape[1], generator=g, dtype=torch.float64), y


def independent(n: int, p: int, q: int) -> Matrices:
    g = torch.Generator().manual_seed(97)
    return (torch.randn(n, p, generator=g, dtype=torch.float64),
            torch.randn(n, q, generator=g, dtype=torch.float64))


DATA: dict[str, Matrices] = {
    "correlated": shared(60, 10, 12),
    "independent": independent(60, 10, 12),
    "rank-deficient": deficient(4, shared(60, 10, 12)),
    "wide": shared(30, 50, 40),
    "shifted by 10 standard deviations": shift(shared(60, 10, 12), 10),
    "shifted and rank-deficient": shift(deficient(4, shared(60, 10, 12)), 10),
}
NARROW = [name for name in DATA if name != "wide"]


def ours(x: Tensor, y: Tensor, name: str) -> float:
    value = indices.of_matrices(x, y, [name])[name]
    assert not value.reason
    return value.value


@pytest.fixture(params=DATA)
def pair(request) -> Matrices:
    return DATA[request.param]


@pytest.fixture(params=NARROW)
def narrow(request) -> Matrices:
    return DATA[request.param]


# --- CKA of matrices ---

def test_cka_is_that_of_ckatorch(pair):
    assert ours(*pair, "cka") == pytest.approx(float(cka_base(*pair)), abs=1e-12)
    assert ours(*pair, "cka") == pytest.approx(float(cka_base(*pair, method="hsic")), abs=1e-12)


def test_debiased_cka_is_that_of_ckatorch(pair):
    assert ours(*pair, "cka_debiased") == pytest.approx(float(cka_base(*pair, unbiased=True)), abs=1e-12)
    assert ours(*pair, "cka_debiased") == pytest.approx(float(cka_batch(*(m[None] for m in pair))), abs=1e-9)


def test_ckatorch_with_hsic_gives_the_biased_number_where_the_unbiased_is_asked_for():
    x, y = DATA["wide"]
    theirs = float(cka_base(x, y, unbiased=True, method="hsic"))
    assert theirs == pytest.approx(float(cka_base(x, y)), abs=1e-12)
    truth = references.cka(x.numpy(), y.numpy(), references.hsic_unbiased)
    assert ours(x, y, "cka_debiased") == pytest.approx(truth, abs=1e-12)
    assert abs(theirs - truth) > 0.01


@pytest.mark.parametrize("name", [name for name in DATA if name != "independent"])
def test_debiased_cka_is_that_of_pytorch_cka_in_float64(name):
    x, y = DATA[name]
    assert ours(x, y, "cka_debiased") == pytest.approx(float(pytorch_cka.cka_from_features(x, y)), abs=1e-9)


@pytest.mark.parametrize(("spreads", "wrong"), [(30, 0.002), (100, 0.1), (1000, 0.1)])
def test_pytorch_cka_loses_large_means_in_float32(spreads, wrong):
    x, y = (m.float() for m in shift(DATA["correlated"], spreads))
    truth = references.cka(*(references.centred(m.double().numpy()) for m in (x, y)),
                           references.hsic_unbiased)
    assert ours(x, y, "cka_debiased") == pytest.approx(truth, abs=1e-12)
    kernels = FlatKernels(1, 1)
    kernels.update([x], [y])
    assert cka_minibatch(kernels) == pytest.approx(truth, abs=1e-6)
    assert abs(float(pytorch_cka.cka_from_features(x, y)) - truth) > wrong


def test_pytorch_cka_clamps_negative_values_to_zero():
    x, y = next((x, y) for x, y in (independent(n, 4, 5) for n in range(6, 30))
                if references.cka(x.numpy(), y.numpy(), references.hsic_unbiased) < -0.05)
    truth = references.cka(x.numpy(), y.numpy(), references.hsic_unbiased)
    assert ours(x, y, "cka_debiased") == pytest.approx(truth, abs=1e-12)
    assert float(pytorch_cka.cka_from_features(x, y)) == 0


def test_pytorch_cka_gives_a_number_for_a_constant_representation():
    x, y = torch.ones(8, 4), DATA["correlated"][1][:8].float()
    assert np.isfinite(float(pytorch_cka.cka_from_features(x, y)))
    assert "constant source" in indices.of_matrices(x, y, ["cka_debiased"])["cka_debiased"].reason


# --- minibatch CKA of networks ---

class Net(nn.Module):
    """Two convolutions with a ReLU between them, that overwrites the first one's output or not."""

    def __init__(self, seed: int, inplace: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.relu, self.second = nn.Conv2d(3, 4, 3), nn.ReLU(inplace), nn.Conv2d(4, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.relu(self.first(x)))

    @torch.no_grad()
    def sites(self, x: Tensor) -> list[Tensor]:
        first = self.first(x)
        return [first, self.second(first.relu())]


LAYERS = ["first", "second"]


def images(n: int) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def loader(n: int, batch: int, shuffle: bool = False) -> DataLoader:
    return DataLoader(TensorDataset(images(n)), batch_size=batch, shuffle=shuffle)


def of_networks(a: Net, b: Net, n: int, batch: int) -> np.ndarray:
    kernels = FlatKernels(2, 2, batch=batch, keep=0)
    kernels.update(a.sites(images(n)), b.sites(images(n)))
    return np.array([[cka_minibatch(kernels, i, j) for j in range(2)] for i in range(2)])


def of_pytorch_cka(a: Net, b: Net, data: DataLoader) -> np.ndarray:
    return pytorch_cka.compute_cka(a, b, data, layers=LAYERS, progress=False, device="cpu")[0].numpy()


def of_torch_cka(a: Net, b: Net, *data: DataLoader) -> np.ndarray:
    both = torch_cka.CKA(a, b, "a", "b", LAYERS, LAYERS)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both.compare(*data)
    return both.export()["CKA"].numpy()


@pytest.mark.parametrize(("n", "batch"), [(48, 16), (50, 23), (40, 40)])
def test_minibatch_cka_is_that_of_pytorch_cka_and_torch_cka(n, batch):
    a, b = Net(1), Net(2)
    got = of_networks(a, b, n, batch)
    assert of_pytorch_cka(a, b, loader(n, batch)) == pytest.approx(got, abs=1e-4)
    assert of_torch_cka(a, b, loader(n, batch)) == pytest.approx(got, abs=1e-4)


@pytest.mark.parametrize("n", [49, 50, 51])
def test_pytorch_cka_and_torch_cka_fail_at_a_small_last_batch_after_the_whole_pass(n):
    a, b = Net(1), Net(2)
    with pytest.raises(ValueError, match="batch size > 3"):
        of_pytorch_cka(a, b, loader(n, 16))
    # It divides by (n - 1) (n - 2) and n - 3, in Python at 3 and in float32 before.
    with pytest.raises((ZeroDivisionError, AssertionError)):
        of_torch_cka(a, b, loader(n, 16))
    assert of_networks(a, b, n, 16) == pytest.approx(of_networks(a, b, 48, 16), abs=1e-12)


def test_pytorch_cka_and_torch_cka_read_what_a_relu_in_place_has_overwritten():
    plain, inplace = Net(1), Net(1, inplace=True)
    truth = of_networks(plain, plain, 48, 16)
    for theirs in (of_pytorch_cka, of_torch_cka):
        assert theirs(plain, Net(1), loader(48, 16)) == pytest.approx(truth, abs=1e-4)
        assert abs(theirs(inplace, Net(1, inplace=True), loader(48, 16)) - truth)[0, 1] > 0.05


def test_torch_cka_scores_identical_networks_near_zero_where_two_loaders_are_shuffled():
    torch.manual_seed(0)
    theirs = of_torch_cka(Net(1), Net(1), loader(96, 24, shuffle=True), loader(96, 24, shuffle=True))
    assert of_networks(Net(1), Net(1), 96, 24).diagonal() == pytest.approx(1)
    assert abs(theirs.diagonal()).max() < 0.3


def test_ckatorch_keeps_the_last_batch_alone_and_compares_tokens_within_examples():
    torch.manual_seed(0)
    a, b, x = nn.Sequential(nn.Linear(6, 5)), nn.Sequential(nn.Linear(6, 7)), torch.randn(40, 9, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = float(TorchCKA(a, b, ["0"])(DataLoader([{"input": i} for i in x], batch_size=16), epochs=1))
    with torch.no_grad():
        fx, fy = a(x), b(x)
    kernels, tokens = FlatKernels(1, 1, batch=16), FlatKernels(1, 1, batch=9)
    kernels.update([fx], [fy])
    tokens.update([fx[32:].flatten(0, 1)], [fy[32:].flatten(0, 1)])
    assert theirs == pytest.approx(cka_minibatch(tokens), abs=1e-5)
    parts = [[m[s].flatten(1).double().numpy() for m in (fx, fy)]
             for s in (slice(0, 16), slice(16, 32), slice(32, 40))]
    hsic = [[references.hsic_unbiased(k @ k.T, m @ m.T) / (len(k) * (len(k) - 3)) for k, m in pairs]
            for pairs in (parts, [(k, k) for k, _ in parts], [(m, m) for _, m in parts])]
    truth = sum(hsic[0]) / np.sqrt(sum(hsic[1]) * sum(hsic[2]))
    assert cka_minibatch(kernels) == pytest.approx(truth, abs=1e-6)
    assert abs(theirs - truth) > 0.01


# --- CCA, Procrustes, regression ---

def by_cca_zoo(x: Tensor, y: Tensor) -> np.ndarray:
    """Canonical correlations."""
    rank = min(int(torch.linalg.matrix_rank(m - m.mean(0))) for m in (x, y))
    views = [x.numpy(), y.numpy()]
    a, b = CCA(n_components=rank).fit(views).transform(views)
    return np.array([np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(rank)])


def test_cca_is_that_of_cca_zoo(narrow):
    found = by_cca_zoo(*narrow)
    assert ours(*narrow, "cca") == pytest.approx(found.mean(), abs=1e-9)
    assert ours(*narrow, "cca_squared") == pytest.approx((found**2).mean(), abs=1e-9)


def test_cca_zoo_gives_perfect_correlations_where_there_are_fewer_rows_than_columns():
    x, y = independent(20, 30, 40)
    assert by_cca_zoo(x, y) == pytest.approx(1)
    assert "need more rows" in indices.of_matrices(x, y, ["cca"])["cca"].reason


def test_opd_is_that_of_scipy():
    x, y = shared(60, 12, 12)
    # Its disparity is at the best scale too: 1 - nuclear norm squared.
    disparity = scipy.spatial.procrustes(x.numpy(), y.numpy())[2]
    assert ours(x, y, "opd") == pytest.approx(2 - 2 * np.sqrt(1 - disparity), abs=1e-12)


def test_r2_is_that_of_scikit_learn(narrow):
    x, y = (m.numpy() for m in narrow)
    fit = LinearRegression().fit(x, y).predict(x)
    assert ours(*narrow, "r2") == pytest.approx(r2_score(y, fit, multioutput="variance_weighted"), abs=1e-10)


# --- representational similarity analysis ---

@pytest.mark.parametrize(("name", "distances", "method"), [
    ("rsa_pearson", "euclidean", "corr"), ("rsa_cosine", "euclidean", "cosine"),
    ("rsa_correlation", "correlation", "corr"), ("rsa_correlation_cosine", "correlation", "cosine"),
    ("rsa_spearman", "euclidean", "spearman"), ("rsa_kendall", "euclidean", "kendall"),
    ("rsa_kendall", "euclidean", "tau-a"),
])
def test_rsa_is_that_of_rsatoolbox(pair, name, distances, method):
    # What it calls Euclidean are squared distances over the number of columns.
    rdms = [calc_rdm(Dataset(m.numpy()), method=distances) for m in pair]
    assert ours(*pair, name) == pytest.approx(float(compare(*rdms, method=method)[0, 0]), abs=1e-10)


def test_kendalls_tau_of_tied_distances_is_the_tau_b_of_rsatoolbox():
    x, y = (m.round() for m in shared(12, 2, 2))
    rdms = [calc_rdm(Dataset(m.numpy()), method="euclidean") for m in (x, y)]
    tau_a, tau_b = (float(compare(*rdms, method=m)[0, 0]) for m in ("tau-a", "kendall"))
    assert ours(x, y, "rsa_kendall") == pytest.approx(tau_b, abs=1e-12)
    assert abs(tau_a - tau_b) > 0.01
