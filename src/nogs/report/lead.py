"""The first sentences of a page: what came out, losses as well as wins, on how many test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nogs.attention.methods import CONTROL, REFERENCE
from nogs.evaluation.comparisons import Outcomes, across_tasks
from nogs.evaluation.pictures import headline
from nogs.evaluation.schema import Comparison, Results
from nogs.evaluation.typed_json import Number
from nogs.evaluation.uncertainty import Bounded
from nogs.report.figures.labels import methods_of
from nogs.report.notation import bounded, brief_nats, count, listed, percent, points, seconds, times
from nogs.report.style import title_of


def lead_of_run(results: Results) -> list[str]:
    """Return sentences on the outcome of one run, the most important first."""
    name = headline(results.methods)
    images = f"{count(results.test.images)} test image{'s' if results.test.images != 1 else ''}"
    sentences = []
    if name and (against_ram := results.comparisons.get(REFERENCE, {}).get(name)):
        sentences.append(f"On {images}, {_against(results, name, REFERENCE, against_ram)}.")
    else:
        ends = [f"{title_of(other)} {percent(_accuracy(results, other))}" for other in results.methods]
        sentences.append(f"Accuracy on {images}: {listed(ends)}.")
    sentences.append(_adaptivity(results, name or next(iter(results.methods))))
    if name and (against_path := results.comparisons.get(CONTROL, {}).get(name)):
        sentences.append(f"Beside one path for all images, {_against(results, name, CONTROL, against_path)}.")
    if rest := [other for other in results.comparisons.get(REFERENCE, {}) if other not in (name, CONTROL)]:
        ends = [
            f"{title_of(other)} {percent(_accuracy(results, other))} "
            f"({points(results.comparisons[REFERENCE][other].mean_test_accuracy_difference)})"
            for other in rest
        ]
        sentences.append(f"The others and their difference from RAM: {listed(ends)}.")
    return [text for text in (*sentences, " ".join(remarks(results))) if text]


def _adaptivity(results: Results, name: str) -> str:
    """Return how much the place of each glimpse depends on the image, under a method and under the reference."""
    names = dict.fromkeys((name, REFERENCE) if REFERENCE in results.methods else (name,))
    nats = {of: results.methods[of].means_by_glimpse["adaptivity_nats_by_glimpse"] for of in names}
    each = [f"{title_of(of)} {', '.join(map(brief_nats, by_glimpse))}" for of, by_glimpse in nats.items()]
    return f"Mutual information between image and place, in nats at each glimpse: {'; '.join(each)}."


def remarks(results: Results) -> list[str]:
    """Return the reservations about the outcome: better baseline, useless posterior, files left out."""
    sentences = []
    if results.target_is_chance:
        sentences.append(
            f"{title_of(REFERENCE)} learned no more than the class frequencies, so the target loss is reached at once."
        )
    if results.linear:
        sentences.append(f"Logistic regression on small whole images has {percent(results.linear.test_accuracy)}.")
    if results.upper_bound:
        sentences.append(f"A large network on whole images has {percent(results.upper_bound.test_accuracy)}.")
    if results.sequences and results.sequences.worth != "useful":
        sentences.append(
            f"The posterior that designed the sequences is {results.sequences.worth}, so methods that "
            "learn from them gain little by it."
        )
    if skipped := results.test.skipped_files:
        sentences.append(f"{count(skipped)} files or rows could not be used and were left out.")
    return sentences


def lead_of_poster(labels: Mapping[str, Results]) -> list[str]:
    """Return on how many labels the method of the page is ahead and behind, and the others' accuracy beside RAM's."""
    names = methods_of(labels)
    name = headline(names)
    pairs = [(name, REFERENCE), (name, CONTROL), (CONTROL, REFERENCE)] if name else []
    sentences = [_across(labels, *pair) for pair in pairs if _compared(labels, *pair)]
    rest = [other for other in names if other not in (name, CONTROL) and _compared(labels, other, REFERENCE)]
    if rest:
        across = {other: across_tasks(_compared(labels, other, REFERENCE)) for other in rest}
        ends = [
            f"{title_of(other)} {points(of.mean_test_accuracy_difference)} on {of.tasks}"
            for other, of in across.items()
        ]
        sentences.append(f"The others’ accuracy and RAM’s, mean difference over labels: {listed(ends)}.")
    return sentences or ["None of these runs has both RAM and another method."]


def _compared(labels: Mapping[str, Results], name: str, reference: str) -> list[Comparison]:
    """Return the comparison on each label, without iterations and seconds where there is no race."""
    ratios = [(of.comparisons.get(reference, {}).get(name), of.has_race) for of in labels.values()]
    return [
        comparison if has_race else replace(comparison, iterations_ratio=None, seconds_ratio=None)
        for comparison, has_race in ratios
        if comparison
    ]


def _across(labels: Mapping[str, Results], name: str, reference: str) -> str:
    of = across_tasks(_compared(labels, name, reference))
    parts = [f"more accurate on {_counts(of.accuracy, 'less')}, {points(of.mean_test_accuracy_difference)} on average"]
    if of.iterations:
        parts.append(f"fewer iterations to the target on {_counts(of.iterations, 'more')}")
    if of.iterations_ratio:
        parts[-1] += f", {bounded(of.iterations_ratio, times, words=True)} in the geometric mean"
    if of.seconds:
        parts.append(f"fewer seconds from nothing on {_counts(of.seconds, 'more')}")
    titles = f"{title_of(name)} beside {title_of(reference)}"
    return f"{titles}, on {of.tasks} of {len(labels)} labels: {'; '.join(parts)}."


def _counts(outcomes: Outcomes, opposite: str) -> str:
    text = f"{outcomes.ahead}, {opposite} on {outcomes.behind}"
    return f"{text}, open on {outcomes.neither}" if outcomes.neither else text


def _against(results: Results, name: str, reference: str, of: Comparison) -> str:
    """Return accuracy, iterations and seconds of a method and of its reference, as one clause."""
    title, other = title_of(name), "the path" if reference == CONTROL else title_of(reference)
    parts = [
        f"{title} classifies {percent(_accuracy(results, name))} correctly and {other} "
        f"{percent(_accuracy(results, reference))} ({_difference(of)})"
    ]
    if of.iterations_ratio and results.has_race:
        needed = [_needed(results, which) for which in (name, reference)]
        parts.append(f"needs {needed[0]} iterations to the target loss and {other} {needed[1]}")
    if of.seconds_ratio and results.has_race:
        spent = [bounded(results.end_to_end[which].needed, seconds, words=True) for which in (name, reference)]
        parts.append(f"takes {spent[0]} from nothing, all its preparations counted, and {other} {spent[1]}")
    return listed(parts) if len(parts) < 3 else f"{parts[0]}; it {parts[1]}, and {parts[2]}"


def _difference(of: Comparison) -> str:
    """Return the mean difference of accuracy, and that of each seed if one method is not ahead with every seed."""
    by_seed = of.test_accuracy_difference
    mean = points(of.mean_test_accuracy_difference)
    return f"{mean}; by seed {listed([points(one) for one in by_seed])}" if min(by_seed) < 0 < max(by_seed) else mean


def _accuracy(results: Results, name: str) -> Number:
    return results.methods[name].means["test_accuracy"].value


def _needed(results: Results, name: str) -> str:
    needed: Bounded = results.methods[name].means["iterations_to_target"]
    return bounded(needed, count, words=True)
