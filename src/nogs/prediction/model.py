"""A trained hard attention network with its preprocessing, its way to choose cells, and its stopping rules."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Generator, Tensor, nn

from nogs.attention.classify import Answers, classify, classify_halting
from nogs.attention.gain import stop_by_gain_map
from nogs.attention.methods import GAIN_MAPS, chooser, method
from nogs.attention.network import HardAttention
from nogs.data.frame import Box, Frame, shown
from nogs.data.tiled.large import LargeImage
from nogs.data.tiled.tiles import TiledImages
from nogs.errors import UserError
from nogs.evaluation.cost import macs_by_glimpse, parts_of_glimpse
from nogs.glimpses.fovea import pixels_read_share
from nogs.prediction.answer import Answer, SlideRead, Square
from nogs.prediction.images import ImageLike, Picture, read_pictures
from nogs.runs.device import chance
from nogs.runs.directory import RunDirectory
from nogs.runs.marker import MARKER, write_marker
from nogs.specs import HaltingSpec, HardAttentionSpec, StoppingSpec
from nogs.stopping.curves import MAP, macs_by_rule
from nogs.stopping.halting import HaltingUnit
from nogs.stopping.heads import StoppingHeads, stop_by_predicted_gain
from nogs.stopping.rules import Stop, never
from nogs.weights import save_network

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGES_AT_ONCE = 64
"""Largest batch of images that `Model.answers` decodes and classifies."""
KEYS = 2**20
"""Number of keys that `chance` distinguishes."""


class Rule(NamedTuple):
    """When images stop, and the multiply-adds of an image that stops after t = 1..T glimpses."""

    stop: Stop
    macs: Sequence[int]


class Halting(NamedTuple):
    """The halting unit that was trained with a network, and its spec."""

    spec: HaltingSpec
    unit: HaltingUnit


class Heads(NamedTuple):
    """Stopping heads that were fitted to a network, and their spec."""

    spec: StoppingSpec
    heads: StoppingHeads


class Model(nn.Module):
    """A network, ready to classify images of any kind and size.

    ``spec``: classes, grid, method and preprocessing of ``network``. ``halting``: the unit of method `act`, which
    stops images by itself. ``stopping``: heads that stop them by a threshold. ``run``: the run directory of train that
    the model comes from, if it comes from one.
    """

    def __init__(
        self,
        spec: HardAttentionSpec,
        network: HardAttention,
        *,
        halting: Halting | None = None,
        stopping: Heads | None = None,
        run: RunDirectory | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.run = run
        self.network = network
        self.halting_spec = halting.spec if halting else None
        self.halting = halting.unit if halting else None
        self.stopping_spec = stopping.spec if stopping else None
        self.heads = stopping.heads if stopping else None
        self.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.spec.classes

    @property
    def device(self) -> torch.device:
        return self.network.baseline.weight.device

    @property
    def frame(self) -> Frame:
        """The form of the images that the network gets."""
        return Frame(self.spec.channels, self.spec.grid.image_px, self.spec.fit, self.spec.range)

    @property
    def predicts_gains(self) -> bool:
        """Whether the location head is a gain map, by which images can stop."""
        return method(self.spec.method).policy in GAIN_MAPS

    @cached_property
    def _locator_macs(self) -> int:
        """Multiply-adds of the location head, counted once, because counting takes longer than an image."""
        return parts_of_glimpse(self.network, channels=self.spec.channels)["locator"]

    @cached_property
    def macs_by_glimpse(self) -> list[int]:
        """Multiply-adds of an image after t = 1..T glimpses, without a stopping rule."""
        spec = self.spec
        has_policy = method(spec.method).policy != "none"
        return macs_by_glimpse(self.network, channels=spec.channels, glimpses=spec.glimpses, policy=has_policy)

    @torch.inference_mode()
    def forward(self, images: UInt8[Tensor, "B c H H"], *, threshold: float | None = None) -> Answers:
        """Classify images in the form of `frame`. ``threshold`` as in `predict`."""
        if method(self.spec.method).looks != "random":
            return self._classify(images, self.rule(threshold).stop, generator=chance(0, device=self.device))
        # Each image has random cells of its own, drawn from its pixels: they do not depend on its batch.
        keys = [zlib.crc32(image.cpu().numpy().tobytes()) % KEYS for image in images]
        stop = self.rule(threshold).stop
        one_by_one = [
            self._classify(image[None], stop, generator=chance(0, key, device=self.device))
            for image, key in zip(images, keys, strict=True)
        ]
        return Answers(*(torch.cat(column) for column in zip(*one_by_one, strict=True)))

    @overload
    def predict(self, images: list[Any] | tuple[Any, ...], *, threshold: float | None = None) -> list[Answer]: ...
    @overload
    def predict(self, images: ImageLike, *, threshold: float | None = None) -> Answer: ...
    def predict(
        self, images: ImageLike | list[Any] | tuple[Any, ...], *, threshold: float | None = None
    ) -> Answer | list[Answer]:
        """Classify an image, or each image of a list.

        Parameters
        ----------
        images
            A path, a PIL image, a uint8 array [H, W] or [H, W, c], a uint8 tensor [H, W] or [c, H, W], of any size, or
            a list of them. An array or tensor with four axes is a list of images. Images are fitted and resized as in
            training. The orientation in EXIF is applied first.
        threshold
            Stop an image as soon as the predicted gain of further glimpses is below this, in nats each. This needs
            stopping heads (``load_model(path, stopping=...)``) or a network whose location head predicts gains. Without
            it every image gets as many glimpses as in training; networks of method `act` stop by themselves.

        Returns
        -------
        Answer | list[Answer]
            An answer, or a list of answers for a list. The answer for an image does not depend on the images beside
            it, except for rounding errors.

        Raises
        ------
        UserError
            If an image cannot be used.
        """
        if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
            images = list(images)
        single = not isinstance(images, list | tuple)
        answers: list[Answer] = []
        for number, answer in enumerate(self.answers([images] if single else images, threshold=threshold)):  # type: ignore[list-item, arg-type] # narrowed by `single`
            if isinstance(answer, str):
                image = images if single else images[number]  # type: ignore[index] # as above
                place = str(image) if isinstance(image, str | Path) else "images" if single else f"images[{number}]"
                raise UserError(f"{place}: {answer}")
            answers.append(answer)
        return answers[0] if single else answers

    def answers(self, images: Sequence[ImageLike], *, threshold: float | None = None) -> Iterator[Answer | str]:
        """Yield the answer for each image in order, or the reason why the image cannot be used."""
        rule = self.rule(threshold)
        start, count = 0, 1  # small first batches, so that the first answer comes soon
        while start < len(images):
            batch = images[start : start + count]
            start, count = start + count, min(2 * count, IMAGES_AT_ONCE)
            pictures = list(read_pictures(batch, self.frame))
            usable = [picture for picture in pictures if isinstance(picture, Picture)]
            if usable:
                pixels = torch.from_numpy(np.stack([picture.pixels for picture in usable])).to(self.device)
                classified = iter(zip(*(column.cpu() for column in self(pixels, threshold=threshold)), strict=True))
            for image, picture in zip(batch, pictures, strict=True):
                if isinstance(picture, Picture):
                    size = picture.width, picture.height
                    yield self._answer(Answers(*next(classified)), image, size, rule.macs)
                elif isinstance(picture, LargeImage):
                    with closing(picture):
                        yield self._answer_slide(image, picture, rule)
                else:
                    yield picture

    def plot(self, image: ImageLike, *, threshold: float | None = None, ax: Axes | None = None) -> Axes:
        """Classify an image and draw it with its glimpses (`Answer.plot`)."""
        return self.predict(image, threshold=threshold).plot(ax)

    def rule(self, threshold: float | None) -> Rule:
        """Return when images stop. Raises UserError for a threshold that this network has no use for."""
        spec = self.spec
        answer_macs = self.network.classifier.weight.numel()
        if threshold is None and self.halting is None:
            return Rule(never, self.macs_by_glimpse)
        if self.halting is not None:
            if threshold is not None:
                raise UserError(f"threshold={threshold}: a network of {spec.method} stops by itself; leave it out")
            head_macs = self.network.core.hidden_size
            return Rule(never, macs_by_rule(self.macs_by_glimpse, answer_macs=answer_macs, head_macs=head_macs)["act"])
        assert threshold is not None
        if math.isnan(threshold):
            raise UserError("threshold=nan: must be a number")
        if self.heads is not None:
            macs = macs_by_rule(self.macs_by_glimpse, answer_macs=answer_macs, head_macs=self.heads.macs)["eig"]
            return Rule(stop_by_predicted_gain(self.heads, threshold), macs)
        if not self.predicts_gains:
            raise UserError(
                f"`threshold` without `stopping`: a network of {spec.method} predicts no gain itself; give a run of "
                "`nogs fit-stopping` on it"
            )
        rules = macs_by_rule(
            self.macs_by_glimpse, answer_macs=answer_macs, head_macs=0, locator_macs=self._locator_macs
        )
        return Rule(stop_by_gain_map(threshold), rules[MAP])

    def save(self, folder: str | Path) -> None:
        """Write the model to a folder that `nogs.load_model` reads: safetensors with their specs, and checksums."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        (place / MARKER).unlink(missing_ok=True)
        target = RunDirectory(place)
        save_network(target, "model", self.network, self.spec)
        if self.halting is not None and self.halting_spec is not None:
            save_network(target, "halting", self.halting, self.halting_spec)
        if self.heads is not None and self.stopping_spec is not None:
            save_network(target, "stopping", self.heads, self.stopping_spec)
        write_marker(place)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, device: str = "cpu", revision: str | None = None) -> Model:
        """Load a model from a folder or from the Hugging Face hub, as `nogs.load_model` does."""
        from nogs.prediction.load import load_model

        return load_model(name, device=device, revision=revision)

    def save_pretrained(self, folder: str | Path, *, evaluation: str | Path | None = None) -> None:
        """Write the model and a model card to a folder that `nogs.load_model` reads.

        ``evaluation``: run directory of evaluate whose figures the card states; by default the one in the directory of
        the pipeline that trained the model.
        """
        from nogs.prediction.hub import save_pretrained

        save_pretrained(self, folder, name=Path(folder).name, evaluation=evaluation)

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool = False,
        evaluation: str | Path | None = None,
        token: str | None = None,
    ) -> str:
        """Upload the model and its card to the Hugging Face hub as ``name`` (owner/name); return its address.

        ``token``: by default that of ``hf auth login``. ``evaluation`` as in `save_pretrained`.
        """
        from nogs.prediction.hub import push_to_hub

        return push_to_hub(self, name, private=private, evaluation=evaluation, token=token)

    def _classify(self, images: UInt8[Tensor, "B c H H"] | TiledImages, stop: Stop, *, generator: Generator) -> Answers:
        network, T = self.network, self.spec.glimpses
        choose = chooser(method(self.spec.method), network.grid, generator=generator, path=self.spec.path)
        if self.halting is not None:
            return classify_halting(network, self.halting, images, glimpses=T, choose=choose)
        return classify(network, images, glimpses=T, choose=choose, stop=stop)

    @torch.inference_mode()
    def _answer_slide(self, image: ImageLike, slide: LargeImage, rule: Rule) -> Answer | str:
        """Return the answer for a slide, of which the overview and the glimpses are read, or why it cannot be used."""
        try:
            classified = self._classify(
                TiledImages([slide], self.frame, device=self.device), rule.stop, generator=chance(0, device=self.device)
            )
        except UserError as error:
            return str(error)
        one = Answers(*(column[0].cpu() for column in classified))
        cells = classified.cells[:, : int(one.steps)].cpu()
        shares = pixels_read_share(cells, self.spec.grid, overview_px=self.spec.overview_px)
        read = SlideRead(slide.bytes_read, slide.bytes_read / slide.file_bytes, shares[0, -1].item())
        return replace(self._answer(one, image, (slide.width, slide.height), rule.macs), read=read)

    def _answer(self, one: Answers, image: ImageLike, size: tuple[int, int], macs: Sequence[int]) -> Answer:
        """Return the answer for one image of ``size`` (width, height), with the glimpses in its own pixels."""
        probs = dict(zip(self.classes, one.class_logits.softmax(-1).tolist(), strict=True))
        steps, grid = int(one.steps), self.spec.grid
        box = shown(*size, self.spec.fit)
        down, across = (box.bottom - box.top) / grid.image_px, (box.right - box.left) / grid.image_px
        squares, boxes = [], []
        for row_px, column_px, side_px in grid.squares_px(one.cells[:steps]).tolist():
            row, column = round(box.top + row_px * down), round(box.left + column_px * across)
            height, width = max(1, round(side_px * down)), max(1, round(side_px * across))
            squares.append(Square(row, column, height))
            boxes.append(Box(column, row, column + width, row + height))
        return Answer(
            max(probs, key=probs.__getitem__),
            probs,
            tuple(squares),
            steps,
            macs[steps - 1],
            tuple(boxes),
            size,
            image,
            self.spec.range,
        )
