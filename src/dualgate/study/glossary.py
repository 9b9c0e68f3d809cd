"""Words of the report that a stranger may not know."""

NOTE = "What the words and numbers above stand for; dualgate study --list says more of every method."


def glossary_rows(results: dict) -> list[list[str]]:
    """Rows of the table of words, header first."""
    n_regimes = len(results["regimes"])
    many = f" These rows have {n_regimes} regimes." if n_regimes not in (0, 9) else ""
    return [
        ["word", "meaning"],
        ["regime", "kind of row, known for training and never for predicting; of spectra, a range of effective "
                   "temperature and of metallicity"],
        ["9, 9x4, 4 experts", "one linear model for each regime; for each regime and SNR bin; for each SNR bin."
                              f"{many or ' Spectra have nine regimes.'}"],
        ["phys tower, quality tower", "networks that weigh the experts for each row by features of the measurement, "
                                      "and by features of its errors"],
        ["concat, logit_add, poe, temperature",
         "how two towers become one set of weights: a layer over both, added logits, multiplied probabilities, quality "
         "as the temperature of the physics tower"],
        ["oracle", "each row answered by its own expert: of its true regime, SNR bin, or both"],
        ["whitened, clean, pixels", "experts read principal components in units of the noise; Wiener scores with "
                                    "loadings from noise-free flux; means of four pixels. Without such a word: what "
                                    "the model reads by default, of spectra Wiener scores with loadings from noisy "
                                    "rows"],
        ["hard, top3 routing", "only the first expert, or the first three, answer; else all do, by weight"],
        ["entropy, confidence", "of the weights of a row: how evenly they are spread; the largest of them"],
        ["Q6.1, S1.2, MVP-4.0, ...", "numbers of questions, sections and steps in the proposal that this study carries "
                                     "out"],
    ]  # fmt: skip
