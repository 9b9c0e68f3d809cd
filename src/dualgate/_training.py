"""Training of a mixture's gates after its experts are fitted."""

import numpy as np

from dualgate.gating.collapse import warn_of_collapse


def train(model, lesson, generator):
    """Train towers and fusion of a mixture, and warn if they leave experts without weight.

    Parameters
    ----------
    model : DualTowerMoERegressor
        Its experts are fitted; `fusion_`, `net_` and `history_` are set here.
    lesson : Lesson
    generator : numpy.random.Generator
    """
    from dualgate.gating.training import GateSettings, GateTarget, fit_gates, run_gates

    y = lesson.y
    if model.loss == "cross_entropy":
        values = lesson.cells
    else:  # in standard deviations of y, so that the learning rate means the same for every target
        scale = y.std() or 1.0
        values = (np.column_stack([lesson.predictions, y]) - y.mean()) / scale
    held_out = np.zeros(len(y), dtype=bool)
    n_held_out = int(model.validation_fraction * len(y))
    if n_held_out >= 10:
        held_out[generator.permutation(len(y))[:n_held_out]] = True
    model.fusion_ = model._realise("fusion")
    model.net_, model.history_ = fit_gates(
        lesson.features,
        {name: model._realise(f"{name}_gate")._build_network for name in lesson.features},
        model.fusion_,
        model.experts_.n_regimes_,
        model.experts_.n_quality_bins_,
        GateTarget(model.loss, values, held_out),
        GateSettings(
            max_epochs=model.max_epochs,
            lr=model.lr,
            batch_size=model.batch_size or int(max(np.clip(len(y) // 30, 32, 512), min(len(y) // 150, 2048))),
            warmup_epochs=model.warmup_epochs,
            patience=model.patience,
            entropy_penalty=model.entropy_penalty,
            weight_decay=model.weight_decay,
        ),
        seed=int(generator.integers(2**31)),
        device=model.device,
        verbose=model.verbose,
    )
    weights = np.exp(run_gates(model.net_, lesson.features)[2]).mean(axis=0)
    warn_of_collapse(model, weights, model.experts_.cell_counts_)
