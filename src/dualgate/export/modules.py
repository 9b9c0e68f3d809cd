"""Mixtures as torch modules. Importing this module imports torch."""

import copy
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dualgate.features import LineWindows
from dualgate.features.discriminants import MIN_LOG
from dualgate.features.lines import CONTINUUM_FLOOR
from dualgate.features.quality import STATISTICS
from dualgate.rows import whole_file


class MixtureModule(nn.Module):
    """From rows of X to mean and standard deviation; `parts` are those of `graphs`. Arithmetic is in double precision.

    Only operations that ONNX has are used: systems are solved by elimination that is written out.
    """

    def __init__(self, parts):
        super().__init__()
        kinds = {"plain": PlainScores, "linear": LinearScores, "wiener": WienerModule}
        self.projection = kinds[parts["kind"]](parts)
        self.experts = (FactorModule if parts["factor"] else RidgeModule)(parts)
        self.net = copy.deepcopy(parts["net"])
        self.gates = nn.ModuleDict({name: GateModule(gate) for name, gate in parts["gates"].items()})
        found = parts["discriminants"]
        self.discriminants = None if found is None else DiscriminantModule(found)

    def forward(self, X):
        X = X.double()
        columns = self.projection(X)
        needs_scores = self.net is not None or not isinstance(self.experts, FactorModule)
        if needs_scores and isinstance(self.projection, WienerModule):
            columns |= self.projection.scores(columns)
        evidence, means, variances = self.experts(columns)
        if self.net is None:
            log_weights = torch.log_softmax(evidence, dim=1)
        else:
            found = {} if self.discriminants is None else {"discriminants": self.discriminants(columns["projected"])}
            features = {name: gate(X, columns | found) for name, gate in self.gates.items()}
            if evidence is not None:
                evidence = evidence - evidence.max(dim=1, keepdim=True).values
            log_weights = self.net.stages(log_evidence=evidence, **features)[2].double()
        weights = log_weights.exp()
        weights = weights / weights.sum(dim=1, keepdim=True)
        mean = (weights * means).sum(dim=1)
        variance = (weights * (variances + (means - mean[:, None]).square())).sum(dim=1)
        return mean, variance.sqrt()


def quadratic(matrix, beside):
    """Return ``beside' matrix^-1 beside`` and log |matrix|, for positive matrices (..., q, q) and (..., q, n).

    Eliminating the first block of [[matrix, beside], [beside', 0]] leaves minus the first.
    """
    n_left = beside.shape[-1]
    corner = torch.zeros((), dtype=matrix.dtype) * (beside.transpose(-1, -2) @ beside)
    system = torch.cat([torch.cat([matrix, beside], -1), torch.cat([beside.transpose(-1, -2), corner], -1)], -2)
    log_size = 0.0
    while system.shape[-1] > n_left:
        pivot = system[..., :1, :1]
        log_size = log_size + pivot[..., 0, 0].log()
        system = system[..., 1:, 1:] - system[..., 1:, :1] * (system[..., :1, 1:] / pivot)
    return -system, log_size


class _Arrays(nn.Module):
    """A module with arrays as double buffers, and positions of columns."""

    def keep(self, **arrays):
        for name, values in arrays.items():
            values = np.ascontiguousarray(values)
            values = values.astype(np.int64 if values.dtype.kind in "iu" else np.float64)
            self.register_buffer(name, torch.from_numpy(values.copy()))


class PlainScores(_Arrays):
    """Columns as they are."""

    def __init__(self, parts):
        super().__init__()
        self.keep(columns=parts["columns"])

    def forward(self, X):
        return {"projected": X[:, self.columns]}


class LinearScores(_Arrays):
    """Components of flux columns."""

    def __init__(self, parts):
        super().__init__()
        self.keep(columns=parts["flux"], mean=parts["mean"], linear=parts["linear"].T)

    def forward(self, X):
        return {"projected": (X[:, self.columns] - self.mean) @ self.linear}


class WienerModule(_Arrays):
    """Information of rows on their factors."""

    def __init__(self, parts):
        super().__init__()
        loadings = parts["loadings"]
        rows, columns = np.tril_indices(loadings.shape[1])
        places = np.empty((loadings.shape[1],) * 2, dtype=int)
        places[rows, columns] = places[columns, rows] = np.arange(len(rows))
        self.keep(flux=parts["flux"], error=parts["error"], mean=parts["mean"], noise=parts["noise"])
        self.keep(loadings=loadings, products=loadings[:, rows] * loadings[:, columns], places=places.ravel())

    def forward(self, X):
        flux, error = X[:, self.flux], X[:, self.error]
        measured = (flux.abs() < torch.inf) & (error < torch.inf)  # false for NaN too
        zero = torch.zeros_like(flux)
        weights = torch.where(measured, (self.noise / error).square(), zero)
        weighted = torch.where(measured, weights * ((flux - self.mean) / self.noise), zero)
        width = self.loadings.shape[1]
        precision = (weights @ self.products)[:, self.places].reshape(-1, width, width)
        return {"precision": precision, "moment": weighted @ self.loadings}

    def scores(self, columns):
        """Posterior means of the factors and their variances."""
        eye = torch.eye(self.loadings.shape[1], dtype=torch.float64)
        beside = torch.cat([columns["moment"][:, :, None], eye + torch.zeros_like(columns["precision"])], dim=2)
        found, _ = quadratic(columns["precision"] + eye, beside)
        return {"projected": found[:, 1:, 0], "variances": (found[:, 1:, 1:] * eye).sum(dim=2)}


class FactorModule(_Arrays):
    """Evidence, mean and variance of the components of a factor mixture."""

    def __init__(self, parts):
        super().__init__()
        mixture, target = parts["mixture"], parts["target"]
        self.keep(
            log_share=mixture.log_share, planes=mixture.planes, slopes=mixture.slopes, levels=mixture.levels[:, 0]
        )
        self.keep(noise=mixture.covariance[:, 0, 0], mean=target.mean, scale=target.scale)

    def forward(self, columns):
        precision, moment = columns["precision"][:, None], columns["moment"]
        crossed = precision @ self.planes  # (n, K, r, q + 1)
        pairs = self.planes.transpose(1, 2) @ crossed
        moments = torch.einsum("krq,nr->nkq", self.planes, moment)
        h = moments[..., :-1] - pairs[..., :-1, -1]
        eye = torch.eye(h.shape[-1], dtype=torch.float64)
        slopes = self.slopes + torch.zeros_like(h[..., None])
        forms, log_size = quadratic(pairs[..., :-1, :-1] + eye, torch.cat([h[..., None], slopes], dim=-1))
        evidence = self.log_share + moments[..., -1] - 0.5 * pairs[..., -1, -1] + 0.5 * (forms[..., 0, 0] - log_size)
        means = self.mean + self.scale * (self.levels + forms[..., 0, 1])
        return evidence, means, self.scale.square() * (self.noise + forms[..., 1, 1])


class RidgeModule(_Arrays):
    """Means and variances of ridges; they have no evidence."""

    def __init__(self, parts):
        super().__init__()
        self.keep(coef=parts["coef"].T, intercept=parts["intercept"], residual=parts["residual"])
        self.range = parts["range"]

    def forward(self, columns):
        means = columns["projected"] @ self.coef + self.intercept
        if np.isfinite(self.range).all():
            means = means.clamp(*self.range)
        variances = self.residual + torch.zeros_like(means)
        if "variances" in columns:
            variances = variances + columns["variances"] @ self.coef.square()
        return None, means, variances


class DiscriminantModule(_Arrays):
    """Discriminants of regimes in projected columns, of all rows."""

    def __init__(self, found):
        super().__init__()
        self.keep(coef=found.coef[-1].T, intercept=found.intercept[-1], centre=found.centre[-1], root=found.root[-1])
        self.keep(level=np.maximum(found.level[-1], -1e300))  # of regimes without rows: no infinities in a graph

    def forward(self, projected):
        linear = projected @ self.coef + self.intercept
        member = linear[:, 1 : self.level.shape[0]]
        turned = torch.einsum("kij,nkj->nki", self.root, member[:, None] - self.centre)
        logs = torch.log_softmax(self.level - 0.5 * turned.square().sum(dim=2), dim=1)
        return torch.cat([linear, logs.clamp(min=MIN_LOG)], dim=1)


class GateModule(_Arrays):
    """Features of a gate, with what it reads of the scores."""

    def __init__(self, gate):
        super().__init__()
        self.keep(columns=gate["columns"])
        self.reads, features = gate["reads"], gate["features"]
        self.features = None
        if features is not None:
            self.features = (LineModule if isinstance(features, LineWindows) else QualityModule)(features)

    def forward(self, X, columns):
        found = X[:, self.columns]
        found = found if self.features is None else self.features(found)
        if self.reads is None:
            return found
        more = columns["discriminants"] if self.reads == "discriminants" else columns["variances"].log()
        return torch.cat([found, more], dim=1)


class QualityModule(nn.Module):
    """Statistics of errors, all measured."""

    def __init__(self, features):
        super().__init__()
        self.chosen = [STATISTICS.index(name) for name in features.names_]

    def forward(self, error):
        n_pixels = error.shape[1]
        ordered = error.sort(dim=1).values
        places = [share * (n_pixels - 1) for share in (0.25, 0.5, 0.75)]
        quartiles = []
        for place in places:
            lower, upper = ordered[:, int(place)], ordered[:, min(int(place) + 1, n_pixels - 1)]
            quartiles.append(lower + (place - int(place)) * (upper - lower))
        smallest, largest, total = ordered[:, 0], ordered[:, -1], error.sum(dim=1)
        deviation = error - (total / n_pixels)[:, None]
        square, varies = deviation * deviation, (smallest < largest).double()
        variance = varies * square.mean(dim=1)
        safe = variance + (1 - varies)
        skew = varies * (square * deviation).mean(dim=1) / safe.pow(1.5)
        kurtosis = varies * ((square * square).mean(dim=1) / safe.square() - 3)
        sizes = [total / n_pixels, variance.sqrt(), smallest, largest, quartiles[1], total]
        columns = [*sizes, quartiles[0], quartiles[2], skew, kurtosis]
        return torch.stack([columns[place] for place in self.chosen], dim=1)


class LineModule(_Arrays):
    """Depths and widths of lines, all pixels measured."""

    def __init__(self, features):
        super().__init__()
        self.lines = []
        for place, (name, line) in enumerate(features.continua_.items()):
            self.lines.append((line.pixels.start, line.pixels.stop))
            bands = np.stack([line.blue, line.red], axis=1)
            self.keep(**{f"bands_{place}": bands, f"position_{place}": line.position})
            self.keep(**{f"weights_{place}": features.weights_[name]})
        calcium = [name.startswith("ca_8") and name.endswith("width") for name in features.names_[:-1]]
        self.keep(calcium=np.array(calcium, dtype=float))

    def forward(self, flux):
        floor = CONTINUUM_FLOOR * flux.abs().mean(dim=1, keepdim=True) + np.finfo(np.float32).tiny
        found = []
        for place, (start, stop) in enumerate(self.lines):
            bands, position = getattr(self, f"bands_{place}"), getattr(self, f"position_{place}")
            ends = flux @ bands
            continuum = ends[:, :1] + position * (ends[:, 1:] - ends[:, :1])
            values = flux[:, start:stop] / torch.maximum(continuum, floor)
            found.append((1 - values) @ getattr(self, f"weights_{place}"))
        joined = torch.cat(found, dim=1)
        return torch.cat([joined, (joined @ self.calcium)[:, None]], dim=1)


def write_onnx(module, n_features, path, names):
    """Write a module as an ONNX graph with a free number of rows."""
    rows = torch.ones((3, n_features), dtype=torch.float64)
    graph = BytesIO()
    with warnings.catch_warnings():  # that this exporter is the older one; the newer needs another package
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (rows,), graph, input_names=list(names[:1]), output_names=list(names[1:]),
            dynamic_axes={name: {0: "n_samples"} for name in names}, dynamo=False,
        )  # fmt: skip
    with whole_file(Path(path)) as file:
        file.write(graph.getvalue())
