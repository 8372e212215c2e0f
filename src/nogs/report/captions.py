"""A sentence or two under each figure: what to look for, with numbers taken from the results as they are."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from nogs.report.figures.costs import Costs
from nogs.report.figures.seconds import Spent
from nogs.report.notation import Real, count, nats, percent, seconds, short_count
from nogs.report.read import Material, Step
from nogs.report.style import title_of
from nogs.report.tables import REFERENCE, mean_or_bound, ratio

BREAKDOWN = (
    "Multiply-adds of one step (where to look, what is seen there, the core) and of one answer, whatever the method; "
    "the gather of the fovea multiplies nothing."
)


def lead(material: Material) -> str:
    """The outcome in a sentence or two."""
    parts = []
    for name, scores in material.methods.items():
        if name == REFERENCE or REFERENCE not in material.methods:
            continue
        how = ratio(material, name)
        if how != "–":
            parts.append(
                f"RAM takes {_in_words(how)} as many iterations to the target loss as {title_of(name)}: "
                f"{_needed(material, REFERENCE)} against {_needed(material, name)}."
            )
        ours, rams = mean(scores["test_accuracy"]), mean(material.methods[REFERENCE]["test_accuracy"])
        parts.append(f"{title_of(name)} ends at {percent(ours)} test accuracy, RAM at {percent(rams)}.")
    if not parts:
        parts = [
            f"{title_of(name)} ends at {percent(mean(scores['test_accuracy']))} test accuracy."
            for name, scores in material.methods.items()
        ]
    return " ".join(parts)


def network_and_posterior(material: Material) -> str:
    found = material.results.get("sequences", {})
    text = (
        "The network remembers one glimpse after another and says after each what it sees and where to look "
        "next. The posterior is the one that sequences are designed with"
    )
    designed, random = found.get("nll_nats_by_glimpse"), found.get("random_nll_nats_by_glimpse")
    if designed and random:
        text += (
            f": after {len(designed)} glimpses its loss is {nats(designed[-1])} nats at designed locations and "
            f"{nats(random[-1])} at random ones, on images it was not fitted to"
        )
    text += ". "
    designed = found.get("calibration_error_by_glimpse")
    random = found.get("random_calibration_error_by_glimpse") or material.results.get("posterior", {}).get(
        "calibration_error_by_glimpse"
    )
    if designed and random:
        off, off_random = percent(designed[-1]), percent(random[-1])
        text += f"In the end its confidence is off by {off} at designed locations and {off_random} at random ones"
        text += ": watch it, for the best of many locations is often one that the posterior misjudges."
    return text.strip()


def information_gain(material: Material, *, publishable: bool) -> str:
    over = "the mean image (the photographs are not shown)" if publishable else "the image, faded where unseen"
    chosen = [
        mean(float(example.eig[t, example.cells[t]]) for example in material.examples)
        for t in range(len(material.examples[0].cells))
    ]
    return (
        "Above, the expected information gain about the class of a glimpse at each location, given the glimpses "
        f"before it; the square is {_chosen_by(material)}. Below, {over}, and the probability p that the posterior "
        "gives to the true class. The gain expected of the chosen glimpse is "
        f"{chosen[0]:.2g} nats at first and {chosen[-1]:.2g} at the last, a mean over these "
        f"{len(material.examples)} images."
    )


def _chosen_by(material: Material) -> str:
    """What the marked square is greatest in: (1 - c) own map + c mean map, c the pooling of the run."""
    c, entropy = material.pooling, material.criterion == "epe"
    gain, greatest = ("expected entropy", "least") if entropy else ("gain", "greatest")
    if c == 0:
        where = f"where the {gain} is {greatest} on the image’s own map"
    elif c == 1:
        where = f"where the {gain} is {greatest} on the mean map of all annotated images alone"
    else:
        maps = f"{1 - c:g} × own map + {c:g} × the mean map of all annotated images"
        where = f"where the pooled {gain} is {greatest} ({maps}), not where the image’s own is"
    return f"{where}, among the locations not yet looked at"


def where_they_look(material: Material) -> str:
    text = (
        "Colour is the share of images whose glimpse covers a pixel: test images under the greedy policy, a mean "
        "over seeds. The first glimpse cannot depend on the image, so each seed has one place for it; look at "
        "how the later ones spread"
    )
    if material.designed is None:
        return text + "."
    return text + ", and whether a method has come to look where the designed sequences (of training images) do."


def validation_loss(material: Material) -> str:
    text = "Validation loss with the greedy policy, every seed thin and their mean bold. "
    target = material.results["target_nll_nats"]
    if target is None:
        return text + "There is no target: it is set by RAM, which was not trained."
    reached = [
        f"{title_of(name)} in {_of_seeds(scores['iterations_to_target'])}" for name, scores in material.methods.items()
    ]
    return (
        text + f"The dashed line is the target, {nats(target)} nats: RAM’s best loss, a mean over seeds, plus 0.01. "
        f"It is reached by {listed(reached)}; look at how early."
    )


def races(material: Material) -> str:
    text = (
        "A dot is a seed, the bar their mean, the line one standard deviation each way; converged is within 0.01 "
        "nats of the run’s own best loss, so converging early is worth something only with a good loss."
    )
    never = any(None in scores["iterations_to_target"] for scores in material.methods.values())
    if never and material.results["target_nll_nats"] is not None:
        text += " An arrow stands where training ended without reaching the target."
    return text


def accuracy_by_glimpse(material: Material) -> str:
    said = []
    for name, scores in material.methods.items():
        seeds = scores["test_accuracy_by_glimpse"]
        first, last = mean(seed[0] for seed in seeds), mean(seed[-1] for seed in seeds)
        said.append(f"{title_of(name)} goes from {percent(first)} after one to {percent(last)} after {len(seeds[0])}")
    return f"What each further glimpse adds, and costs (1 multiply-add = 2 FLOPs): {listed(said)}."


def end_to_end(rows: Sequence[Spent], material: Material) -> str:
    """What the seconds are the sum of, and what they leave out."""
    said = [f"{title_of(row.method)} {'at least ' * row.bound}{seconds(row.total)}" for row in rows]
    text = (
        f"From nothing to a validation loss of {nats(material.results['target_nll_nats'])} nats: {listed(said)}. "
        "Sums of wall time over stages, one after the other, though seeds may have run side by side; validations and "
        "the posterior’s focus maps are counted, reading the data is not. The training, in the method’s colour, is "
        "one, a mean over seeds. What comes before it, in green, is made once and serves every later training."
    )
    if any(row.bound for row in rows):
        text += " A seed that never reached the target counts with all the time it ran, which makes a bound (≥)."
    if unknown := [title_of(name) for name in material.methods if name not in {row.method for row in rows}]:
        text += f" Not drawn, for what its sequences cost is not known: {listed(unknown)}."
    return text


def design_of_a_glimpse(material: Material, step: Step, *, publishable: bool) -> str:
    seen = len(step.cells) - 1
    glimpses = "one glimpse" if seen == 1 else f"{seen} glimpses"
    shown = (
        f"the {len(step.weights)} heaviest completions of a test image (the photographs are not shown)"
        if publishable
        else f"a test image, and the {len(step.weights)} heaviest of the images that complete it"
    )
    return (
        f"After {glimpses}: {shown}. Each map says how far a glimpse at a location would move the posterior if that "
        "completion were the truth, KL(gₙ ‖ mean g) in nats; the last is their weighted mean over all completions, "
        f"the expected information gain, {float(step.mean_nats.max()):.2g} nats at its greatest. Its square is the "
        f"next glimpse, {_chosen_by(material)}. Maps light up where completions disagree in what matters for the class."
    )


def posterior_states(count_of: int) -> str:
    return (
        f"States of the posterior after each designed glimpse, for {count(count_of)} training images that it was not "
        "fitted to; one projection on two principal components for all panels. Watch the classes part."
    )


def accuracy_over_cost(costs: Costs) -> str:
    text = (
        f"{'Balanced test' if costs.balanced else 'Test'} accuracy over multiply-adds an image; lines are means over "
        "seeds, bands go from the lowest seed to the highest."
    )
    if costs.adaptive:
        text += f" Dashed: {title_of(costs.adaptive[0])} stops where glimpses to come are expected to tell too little."
    if costs.cnn:
        text += (
            f" CNNs see the whole image, from {short_count(min(network.macs for network in costs.cnn))} to "
            f"{short_count(max(network.macs for network in costs.cnn))} multiply-adds; the grey line joins those that "
            "no other beats on validation images for less."
        )
    if costs.upper_bound:
        macs = short_count(costs.upper_bound.macs)
        text += f" The upper bound is a large network that sees the image at full size, for {macs} multiply-adds."
    return text


def stopping(material: Material) -> str:
    of = f"{title_of(material.stopping_method)}’s networks" if material.stopping_method else "One method’s networks"
    text = (
        f"{of}, asked after every glimpse whether to go on: a line is the mean over seeds, its band goes from the "
        "lowest seed to the highest. Dashed, the same number of glimpses for every image."
    )
    if material.results.get("stopping_advantage"):
        text += (
            " Beneath, accuracy of stopping by the expected gains minus each rival’s at equal mean glimpses, in "
            "percentage points, with its 95 % interval over test images: above 0 they are ahead."
        )
    return text


def _needed(material: Material, name: str) -> str:
    needed = mean_or_bound(material.methods[name]["iterations_to_target"], material.trained(name, "iteration"))
    if needed is None:
        return "an unknown number"
    return ("at least " if needed.bound else "") + count(needed.value)


def _in_words(ratio_text: str) -> str:
    return ratio_text.replace("≥ ", "at least ").replace("≤ ", "at most ") + " times"


def _of_seeds(values: Sequence[Real | None]) -> str:
    return f"{sum(value is not None for value in values)} of {len(values)} seeds"


def listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
