"""The named protocols."""

from __future__ import annotations

from sslosses.metrics._protocol import Protocol

lvs = Protocol(
    "lvs",
    mixture_metrics=("CIoU@0.5", "AUC"),
    single_metrics=("CIoU@0.5", "AUC"),
    upsampling="bilinear",
    assignment="one per frame",
)
ez_vsl = Protocol(
    "ez-vsl",
    mixture_metrics=("AP50", "mCIoU", "AUC"),
    single_metrics=("AP50", "mCIoU", "AUC"),
    upsampling="bilinear, aligned corners",
    binarization="from upper median",
    assignment="one per frame",
    prior_weight=0.4,
)
avgn = Protocol(
    "avgn",
    mixture_metrics=("Precision@0.1", "AP", "DetAP@0.3", "DetF1@0.3", "AUC"),
    single_metrics=("Precision@0.3", "AP", "DetAP@0.3", "DetF1@0.3", "AUC"),
    normalization="fixed range, min-max",
    binarization="from upper median",
    assignment="position",
    average_precision="swapped",
    add_boxes=True,
    average_positions=True,
    tau=0.03,
)
noprior = Protocol(
    "noprior",
    mixture_metrics=("CAP", "CIoU@0.3", "CIoU@0.5", "AUC", "PIAP", "CountAcc"),
    single_metrics=("CAP", "CIoU@0.3", "CIoU@0.5", "AUC", "PIAP", "CountAcc"),
)
tvsl = Protocol(
    "tvsl",
    mixture_metrics=("CIoU", "IoU", "AUC", "AP"),
    single_metrics=("CIoU", "IoU", "AUC", "AP"),
    normalization="inverted min-max",
    binarization="from value",
    threshold=0.3,
    assignment="position",
    canvas="whole map",
    average_precision="continuous",
)
paper = Protocol("paper", mixture_metrics=("CAP", "CIoU@0.3", "AUC"), single_metrics=("AP", "IoU@0.5", "AUC"))
clean = Protocol(
    "clean",
    mixture_metrics=("CAP", "CIoU@0.3", "CIoU@0.5", "mCIoU", "AUC", "CountAcc"),
    single_metrics=("AP", "CIoU@0.5", "mCIoU", "AUC"),
    upsampling="bilinear",
    binarization="from value",
    threshold=0.5,
    assignment="optimal",
    average_precision="continuous",
    empty_truths="leave out",
)

_EXTENDED = ("LocAcc", "AUC", "DetAP@0.5", "MaxF1@0.5")
#: SLAVC's evaluation code with ``--relative_prediction``, as in the README's command for VGG-SS.
slavc = Protocol(
    "slavc",
    mixture_metrics=_EXTENDED,
    single_metrics=_EXTENDED,
    upsampling="bicubic, aligned corners",
    normalization="fixed range, min-max",
    binarization="from upper median",
    assignment="one per frame",
    tau=0.03,
    prior_weight=0.9,
    prior_range=2.5,
)
#: Without that flag, as in its script for Flickr.
slavc_fixed = slavc.replace(name="slavc-fixed", normalization="fixed range", binarization="from value", threshold=0.5)
#: What the README of AVGN runs. Its object prior has a weight of its own. Its code calls CIoU@t “Precision”.
_AVGN_TEST = ("CIoU@0.3", "CIoU@0.5", "CIoU@0.75", "AP", "DetAP@0.3", "DetAP@0.5", "DetAP@0.75", "AUC")
avgn_test = slavc_fixed.replace(
    name="avgn-test",
    mixture_metrics=_AVGN_TEST,
    single_metrics=_AVGN_TEST,
    average_precision="swapped",
    prior_weight=0.4,
)
sslalign = Protocol(
    "sslalign",
    mixture_metrics=("CIoU@0.5", "AUC", "mCIoU"),
    single_metrics=("CIoU@0.5", "AUC", "mCIoU"),
    upsampling="bilinear",
    binarization="above upper median, strict",
    assignment="one per frame",
    prior_weight=0.4,
)
sslalign_adaptive = sslalign.replace(name="sslalign-adaptive", binarization="truth's area")
fnac = ez_vsl.replace(name="fnac")
#: The second evaluation that FNAC's code prints: the object prior keeps its resizing.
fnac_bicubic = fnac.replace(name="fnac-bicubic", upsampling="bicubic", prior_upsampling="bilinear, aligned corners")
htf = lvs.replace(name="htf", upsampling="bicubic")
ssl_tie = lvs.replace(name="ssl-tie")
rcgrad = lvs.replace(name="rcgrad", binarization="from value", threshold=0.5)
acl = Protocol(
    "acl",
    mixture_metrics=("CIoU@0.5", "AUC"),
    single_metrics=("CIoU@0.5", "AUC"),
    normalization="none",
    binarization="from value",
    threshold=tuple(step / 20 for step in range(1, 20)),
    assignment="one per frame",
)
dsol = Protocol(
    "dsol",
    mixture_metrics=("CIoU@0.3", "AUC"),
    single_metrics=("IoU@0.5", "AUC"),
    upsampling="bilinear",
    normalization="none",
    binarization="share of maximum",
    threshold=0.1,
    mixture_threshold=0.2,
    assignment="optimal",
    average_sources=True,
)
#: NoPrior's script for MUSIC-Duet. The number of sources is unknown to it, so it has no CountAcc.
noprior_union = noprior.replace(
    name="noprior-union",
    mixture_metrics=("CAP", "CIoU@0.3", "CIoU@0.5", "AUC", "PIAP"),
    single_metrics=("CAP", "CIoU@0.3", "CIoU@0.5", "AUC", "PIAP"),
    union_sources=True,
)

PROTOCOLS = (
    *(lvs, ez_vsl, avgn, noprior, tvsl, paper, clean),
    *(slavc, slavc_fixed, sslalign, sslalign_adaptive, fnac, fnac_bicubic, htf, ssl_tie, rcgrad, acl, dsol),
    *(avgn_test, noprior_union),
)
