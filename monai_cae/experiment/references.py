"""What a paper has to cite for what an experiment did."""

from __future__ import annotations

import re

REFERENCES = {
    "yagis": "Yagis E, Seco de Herrera AG, Citi L. Convolutional Autoencoder based Deep Learning Approach for "
    "Alzheimer's Disease Diagnosis using Brain MRI. IEEE International Symposium on Computer-Based Medical Systems "
    "(CBMS) 2021.",
    "oasis": "Marcus DS, Wang TH, Parker J, Csernansky JG, Morris JC, Buckner RL. Open Access Series of Imaging "
    "Studies (OASIS): cross-sectional MRI data in young, middle aged, nondemented, and demented older adults. J Cogn "
    "Neurosci 2007; 19: 1498-1507.",
    "adam": "Kingma DP, Ba J. Adam: a method for stochastic optimization. ICLR 2015. arXiv:1412.6980.",
    "nested": "Varma S, Simon R. Bias in error estimation when using cross-validation for model selection. BMC "
    "Bioinformatics 2006; 7: 91.",
    "bootstrap": "Efron B, Tibshirani RJ. An Introduction to the Bootstrap. Chapman & Hall 1993.",
    "mcnemar": "McNemar Q. Note on the sampling error of the difference between correlated proportions or percentages. "
    "Psychometrika 1947; 12: 153-157.",
    "delong": "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated receiver "
    "operating characteristic curves: a nonparametric approach. Biometrics 1988; 44: 837-845.",
    "nadeau": "Nadeau C, Bengio Y. Inference for the generalization error. Mach Learn 2003; 52: 239-281.",
    "monai": "Cardoso MJ, Li W, Brown R, et al. MONAI: an open-source framework for deep learning in healthcare. 2022. "
    "arXiv:2211.02701.",
    "pytorch": "Paszke A, Gross S, Massa F, et al. PyTorch: an imperative style, high-performance deep learning "
    "library. NeurIPS 2019. arXiv:1912.01703.",
}


def numbered(text: str) -> tuple[str, list[str]]:
    """A text whose citations have numbers, and the works in their order.

    Args:
        text: cites as `[@name]` or `[@name, @other]`, by the names of `REFERENCES`.
    """
    order: list[str] = []

    def number(found: re.Match[str]) -> str:
        names = re.findall(r"@(\w+)", found[0])
        order.extend(name for name in names if name not in order)
        return f"[{', '.join(str(order.index(name) + 1) for name in names)}]"

    made = re.sub(r"\[@\w+(?:, @\w+)*\]", number, " ".join(text.split()))
    return made, [REFERENCES[name] for name in order]
