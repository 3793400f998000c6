"""What the words of a report mean, for a reader who has not read the README."""

ARMS = {
    "base": "the network that was named, trained as it is",
    "found": "the best candidate of the study, by validation accuracy",
    "pruned": "the widths straight from the sparse supernet's scores, trained from scratch",
    "guided": "the design rule fitted to the pruned widths: one keep ratio a stage",
    "transferred": "widths from the design rule of another network",
    "uniform": "one keep ratio for every slot: the largest such network under the budget",
    "uniform@macs": "one keep ratio for every slot, with the macs of the found network",
    "uniform@params": "one keep ratio for every slot, with the parameters of the found network",
    "uniform@latency": "one keep ratio for every slot, with the latency of the found network by the fitted formula",
    "taper": "keep ratios that shrink from stage to stage by a constant factor; needs no supernet",
    "random": "random shapes under the same budget; where there are several, the median a seed",
    "random (best)": "of the random shapes, the one with the best mean validation accuracy",
    "inherited": "the pruned network with the supernet's weights kept, trained on",
}
ARMS_OF_CASES = ARMS | {
    "pruned": "what a method left of a trained network",
    "uniform": "the same number of weights, spread evenly at random",
    "uniform@macs": "one keep ratio for every slot, with the macs of the pruned network",
    "uniform@params": "one keep ratio for every slot, with the parameters of the pruned network",
    "taper": "keep ratios that shrink by a constant factor a stage, with the pruned network's macs and params",
    "random": "random shapes with the pruned network's macs and params; where there are several, the median a seed",
}
"""The arms of a comparison of pruning methods."""

ARMS_OF_MASKS = {
    "base": ARMS["base"],
    "pruned": "the places of the largest weights of the trained network, trained from scratch",
    "guided": "places drawn by the network's own rule: a share for each place of a kernel, a stage at a time",
    "transferred": "places drawn by another network's rule",
    "uniform": "the same number of weights, spread evenly at random",
    "inherited": "the largest weights kept as they were trained, and trained on",
}
"""The arms where single weights are masked."""

SCHEDULES = {
    "scratch-e": "from scratch, for as many epochs as the base",
    "scratch-b": "from scratch, for as much training compute as the base: a smaller network gets more epochs",
    "fine-tune": "weights kept, a short training at a low learning rate",
    "rewind": "weights kept, with the schedule of scratch-e from its start",
}
TERMS = {
    "macs": "multiply-accumulates of convolutions and linear layers for one input",
    "probe": "some steps with each optimizer on the unpruned network, to choose the better one",
    "params": "numbers that training sets, biases and norms included",
    "train macs": "macs of one training, forward and backward, over all epochs",
    "±": "sample standard deviation of the test accuracy over n seeds",
}
