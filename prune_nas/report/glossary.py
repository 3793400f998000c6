"""What the words of a report mean, for a reader who has not read the guide."""

ARMS = {
    "base": "the unpruned network, trained as it is",
    "found": "the best network of the study, by validation accuracy",
    "pruned": "the widths that the supernet's scores gave, trained from scratch",
    "guided": "the mean share of each stage, applied: the paper's guided pruning",
    "transferred": "the widths of another network's rule",
    "uniform": "all layers keep the same share, as large as the budget allows",
    "uniform@macs": "all layers keep the same share, with the macs of the found network",
    "uniform@params": "all layers keep the same share, with the params of the found network",
    "uniform@latency": "all layers keep the same share, with the latency of the found network, by the formula",
    "taper": "the share falls by a constant factor from stage to stage. It needs no supernet",
    "random": "networks of random widths within the budget. For each seed the table shows their median",
    "random (best)": "the random network with the best mean validation accuracy",
    "inherited": "the pruned network with the supernet's weights kept, trained on",
}
ARMS_OF_CASES = ARMS | {
    "pruned": "what a method left of a trained network",
    "uniform": "the same number of weights, spread evenly at random",
    "uniform@macs": "all layers keep the same share, with the macs of the pruned network",
    "uniform@params": "all layers keep the same share, with the params of the pruned network",
    "taper": "the share falls by a constant factor from stage to stage, with the macs and params of the pruned network",
    "random": "networks of random widths with the macs and params of the pruned network. For each seed, their median",
}
"""The arms of a comparison of pruning methods."""

ARMS_OF_MASKS = {
    "base": ARMS["base"],
    "pruned": "the largest weights of the trained network, trained again from scratch",
    "guided": "weights drawn by this network's rule: for each stage, a share per place of the kernel",
    "transferred": "weights drawn by another network's rule",
    "uniform": "the same number of weights, spread evenly at random",
    "inherited": "the largest weights, kept and trained on",
}
"""The arms where single weights are masked."""

SCHEDULES = {
    "scratch-e": "from scratch, for the epochs of the unpruned network",
    "scratch-b": "from scratch, with the compute of the unpruned network: a smaller network trains for more epochs",
    "fine-tune": "weights kept, a short training at a low learning rate",
    "rewind": "weights kept, then the whole schedule of scratch-e",
}
TERMS = {
    "macs": "multiply-accumulates of convolutions and linear layers for one image",
    "probe": "some steps with each optimiser on the unpruned network, to choose the better optimiser",
    "params": "number of trainable parameters, with biases and norms",
    "train macs": "macs of a training, forward and backward, over all epochs",
    "±": "sample standard deviation of the test accuracy over n seeds",
}
