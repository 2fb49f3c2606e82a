"""CLAIM, the Checklist for Artificial Intelligence in Medical Imaging (Tejani et al. 2024, Radiol Artif Intell
6:e240300): its 44 items in our own short words, answered from a run where it knows the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_cae.experiment.card import Facts

OPEN = "open:"


def claim_rows(facts: Facts) -> list[list[str]]:
    """Number, item and answer of each of the 44 items; an answer that the run does not know begins with "open:".

    Args:
        facts: of the experiment.
    """
    items = [*_front(), *_data(facts), *_reference(facts), *_partitions(facts), *_model(facts), *_rest(facts)]
    return [[str(number), asks, answer] for number, (asks, answer) in enumerate(items, start=1)]


def _front() -> list[tuple[str, str]]:
    return [
        ("title names the kind of AI", f"{OPEN} the title; the technology is deep learning (convolutional networks)"),
        ("abstract: design, methods, results, conclusions", f"{OPEN} the author's"),
        ("background, intended use and role", f"{OPEN} the background; for the use see Intended use"),
        ("aims and hypotheses", f"{OPEN} a run does not know what was to be shown"),
        ("prospective or retrospective", f"{OPEN} how and for what the scans were collected"),
        ("goal of the study", f"{OPEN} the author's"),
    ]


def _data(facts: Facts) -> list[tuple[str, str]]:
    recorded, left_out = facts.recorded, facts.recorded.get("left_out")
    shown = f"{facts.extraction.name} (slices are counted from 1)"
    size = " x ".join([str(facts.setting("image_size"))] * facts.extraction.spatial_dims)
    unlabelled = next((n for why, n in (left_out or {}).items() if why.startswith("scans without a label")), 0)
    positive, negative = facts.rules
    sessions = {"first": "the first scan of a subject", "all": "all scans of a subject"}.get(
        str(recorded.get("sessions")), "scans as the datalist has them"
    )
    return [
        (
            "sources of the data",
            "synthetic brains of `monai-cae phantom`; no people"
            if facts.synthetic
            else f"{OPEN} where, when and from whom; read as: {recorded.get('layout') or 'a given datalist'}",
        ),
        (
            "inclusion and exclusion",
            f"included: {positive} (AD) or {negative} (HC), controls {recorded['controls']}, {sessions}; left out: "
            + ("not recorded" if left_out is None else _counts(left_out))
            if positive
            else f"{OPEN} the datalist was given and does not say",
        ),
        (
            "preprocessing",
            f"{shown}, centre-cropped or padded to {size}, intensities scaled to 0..1 per image "
            f"({_transforms(facts)}); what was done to the files before is not known",
        ),
        ("selection of parts of the data", f"{shown} of every volume; {sessions}"),
        ("de-identification", f"{OPEN} of the images; no ID is in this card, checkpoints carry hashes of them"),
        (
            "missing data",
            f"a blank is neither class: {unlabelled} scans without a label left out; without age or sex a subject is "
            "in the subgroup unknown"
            if left_out is not None
            else f"{OPEN} before the datalist; in the subgroups a blank is the group unknown",
        ),
        (
            "acquisition of the images",
            "none: the images are synthetic" if facts.synthetic else f"{OPEN} scanner, field strength, sequence",
        ),
    ]


def _transforms(facts: Facts) -> str:
    listed = (facts.configs["evaluate"].get("preprocessing") or {}).get("transforms") or []
    return ", ".join(str(one.get("_target_")).rpartition(".")[2] for one in listed if isinstance(one, dict))


def _counts(left_out: dict[str, int]) -> str:
    return ", ".join(f"{count} {why}" for why, count in left_out.items()) or "nobody"


def _reference(facts: Facts) -> list[tuple[str, str]]:
    positive, negative = facts.rules
    by_rule = f"label 1: {positive}; label 0: {negative}, from columns of the cohort's table"
    return [
        ("reference standard", by_rule if positive else f"{OPEN} labels of a given datalist"),
        ("why this reference standard", f"{OPEN} the author's"),
        ("who annotated, and how", f"{OPEN} the run reads the table; who rated is not in it"),
        (
            "annotation of the test set",
            "by the same rule as training and validation" if positive else f"{OPEN} labels of a given datalist",
        ),
        ("variability between and within raters", f"{OPEN} the run reads one rating per scan"),
    ]


def _partitions(facts: Facts) -> list[tuple[str, str]]:
    recorded, summary = facts.recorded, facts.summary
    how = ""
    if recorded.get("kind") == "kfold":
        how = f"{recorded['folds']} folds, {recorded['val_fraction']:g} of the rest validation"
    elif recorded.get("kind") == "holdout":
        how = f"{recorded['test_fraction']:g} of the subjects test, {recorded['val_fraction']:g} of the rest validation"
    seeds = [part["seed"] for part in summary["results"]]
    drawn = f"at random, stratified by {recorded.get('stratify')}, {how}; {facts.scheme}"
    leaks = f"; LEAKY: {summary['leaks']} leaks" if summary["leaks"] else "; no leak found, checks under Data"
    return [
        (
            "assignment to partitions",
            f"{drawn}, seeds {min(seeds)} to {max(seeds)}" if how else f"{OPEN} the datalist was given",
        ),
        ("level at which partitions are disjoint", f"subject, with all scans{leaks}"),
        ("intended sample size", f"{OPEN} whether it was planned; tested: {sum(facts.tested)} subjects"),
    ]


def _model(facts: Facts) -> list[tuple[str, str]]:
    epochs = {stage: facts.setting("max_epochs", stage) for stage in ("pretrain", "train")}
    rates = {stage: facts.setting("learning_rate", stage) for stage in ("pretrain", "train")}
    return [
        ("the model in detail", f"{facts.network}; autoencoder of {facts.setting('channels', 'pretrain')} channels; "
         "the executed configs have all of it"),
        ("software", facts.software),
        ("initial weights", f"autoencoder random, classifier: {facts.start}; seeded"),
        (
            "training",
            f"at most {epochs['pretrain']} epochs (autoencoder) and {epochs['train']} per step (classifier), learning "
            f"rate {rates['pretrain']} and {rates['train']}, batches of {facts.setting('batch_size', 'train')}, "
            f"augmentation {facts.setting('augment', 'train')}, classifier's layers learned: "
            f"{facts.setting('learn', 'train')}",
        ),
        (
            "choice of the final model",
            f"autoencoder: {_kept(facts, 'pretrain')}; classifier: {_kept(facts, 'train')}; the test set takes no part"
            + ("; but see Caveats: test sets seen before" if _seen(facts) else ""),
        ),
        ("ensembling", "none; every part's network is scored on its own"),
    ]  # fmt: skip


def _kept(facts: Facts, stage: str) -> str:
    patience = f"patience {facts.setting('patience', stage)} epochs"
    if facts.setting("keep", stage) == "last":
        return f"the last epoch, {patience}"
    return f"the epoch of the lowest validation loss, {patience}"


def _seen(facts: Facts) -> bool:
    return any(caveat.startswith("TEST SETS SEEN BEFORE") for caveat in facts.results.caveats)


def _rest(facts: Facts) -> list[tuple[str, str]]:
    several, groups = facts.summary["parts"] > 1, not facts.results.subgroups.empty
    others = len(facts.results.methods) - 1
    looked = [f"SD over {facts.scheme}"] * several + ["subgroups"] * groups + [f"{others} other methods"] * (others > 0)
    return [
        ("metrics of performance", "accuracy, balanced accuracy, sensitivity, specificity, F1, MCC, AUC, average "
         f"precision, Brier, ECE, calibration line; threshold {facts.setting('threshold', 'evaluate')}"),
        ("significance and uncertainty", "95 % bootstrap intervals over subjects" + "; against other methods exact "
         "McNemar, DeLong and corrected resampled t test, two-sided, no correction for several" * (others > 0)),
        ("robustness or sensitivity", ", ".join(looked) if looked else f"{OPEN} one part, no other method, no groups"),
        ("explainability", f"{OPEN} none was validated; feature maps are in the figures of the autoencoder"),
        ("evaluation on internal data", f"{facts.scheme}, test subjects of the same cohort"),
        ("testing on external data", f"{OPEN} not part of this experiment"),
        ("registration of a trial", f"{OPEN} the author's"),
        ("numbers included and excluded", "the flow under Data" if facts.recorded.get("left_out") is not None
         else f"{OPEN} those left out; those included: the flow under Data"),
        ("characteristics per partition", "the table of sets under Data (age, sex, class), of the first part"),
        ("performance and its uncertainty", f"accuracy {facts.score('accuracy')}, AUC {facts.score('auc')}, "
         f"F1 {facts.score('f1')}; all under Scores"),
        ("diagnostic performance and precision", f"sensitivity {facts.score('sensitivity')}, specificity "
         f"{facts.score('specificity')}"),
        ("analysis of the failures", f"{OPEN} predictions.csv has every test prediction; by group under Subgroups"),
        ("limitations", "Limits and Caveats, as far as the run knows them"),
        ("implications for practice", "none: research software, not for decisions about people; see Not intended"),
        ("protocol or further technical detail", f"{OPEN} the protocol; executed configs lie in the run's folder"),
        ("availability of software, model and data", f"{OPEN} model and data; software: monai-cae, Apache-2.0"),
        ("funding and the role of funders", f"{OPEN} the author's"),
    ]  # fmt: skip
