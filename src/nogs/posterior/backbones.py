"""Backbones of the masked-CNN posterior: a small residual network, or any model of timm, with its published weights.

Unknown names, failed downloads and unsuitable image sizes raise errors of one line. Without a network only weights that
were downloaded before can be used, and all others fail within seconds.
"""

from __future__ import annotations

import difflib
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from nogs.errors import RunError, UserError

SMALL = "small-resnet"
HUB = "hf-hub:", "hf_hub:"
"""Prefixes of the names that timm takes from the Hugging Face Hub."""
PROBE_SECONDS = 3.0
"""How long the hub may take to answer."""


def build_backbone(name: str, channels: int, classes: int, *, image_px: int, pretrained: bool) -> nn.Module:
    """Return the network ``name`` for ``channels`` input channels and ``classes`` logits.

    ``name``: "small-resnet", or what `timm.create_model` takes. ``image_px``: side of the images it has to take.
    ``pretrained``: with published weights. Raises UserError for a name or an image size that does not fit, RunError if
    a download fails.
    """
    if name == SMALL:
        return small_resnet(channels, classes)
    import timm  # takes seconds to import, and the lookahead posterior does not use it

    if ":" not in name and "/" not in name and not timm.is_model(name):
        close = difflib.get_close_matches(name, [SMALL, *timm.list_models()], n=1)
        fix = f"did you mean {close[0]}?" if close else f"choose {SMALL}, or one of timm.list_models()"
        raise UserError(f"backbone={name}: timm has no such model; {fix}")
    with _one_line_errors(name, downloads=pretrained or name.startswith(HUB)):
        network = timm.create_model(name, pretrained=pretrained, in_chans=channels, num_classes=classes)
    _check_images(network, name, torch.zeros(1, channels, image_px, image_px))
    return network


def small_resnet(channels: int, classes: int) -> nn.Module:
    """Return timm's ResNet with one block a stage: 0.7 M parameters, for images of 32 to 128 pixels."""
    import timm

    return timm.models.resnet.ResNet(
        timm.models.resnet.BasicBlock,  # type: ignore[arg-type] # timm annotates an instance, and takes the class
        layers=(1, 1, 1, 1),
        channels=(32, 64, 96, 128),
        in_chans=channels,
        num_classes=classes,
        stem_width=32,
    )


@contextmanager
def _one_line_errors(name: str, *, downloads: bool) -> Iterator[None]:
    """Turn the errors of `timm.create_model` into errors of one line, and do not wait for a hub out of reach.

    ``downloads``: whether the model may need files from the hub.
    """
    from huggingface_hub import constants, errors

    offline = constants.HF_HUB_OFFLINE
    if downloads and not offline:
        constants.HF_HUB_OFFLINE = not _is_reachable(constants.ENDPOINT)
    try:
        yield
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, urllib.error.URLError, ConnectionError):
        raise RunError(
            f"backbone={name}: its files were not downloaded before, and {constants.ENDPOINT} is out of reach or "
            f"HF_HUB_OFFLINE is set: connect to it, or choose {SMALL}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"backbone={name}: {constants.ENDPOINT} has no such model, or it needs a login") from None
    except (RuntimeError, ValueError, TypeError, FileNotFoundError, AssertionError) as error:
        raise UserError(
            f"backbone={name}: timm cannot build this model ({_first_line(error)}); choose another"
        ) from None
    finally:
        constants.HF_HUB_OFFLINE = offline


def _check_images(network: nn.Module, name: str, images: torch.Tensor) -> None:
    """Raise UserError unless ``network`` takes ``images``; its weights and statistics stay as they are."""
    training = network.training
    try:
        with torch.inference_mode():
            network.eval()(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        side = images.shape[-1]
        raise UserError(
            f"backbone={name}: does not take images of {side} x {side} pixels ({_first_line(error)}); choose another"
        ) from None
    finally:
        network.train(training)


def _is_reachable(url: str) -> bool:
    """Return whether a server answers at ``url`` within `PROBE_SECONDS`; proxies of the environment are used."""
    reached = threading.Event()

    def probe() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # the server answered with an error page
        except (OSError, ValueError):
            return
        reached.set()

    # In a thread, because looking up a host name has no time limit.
    threading.Thread(target=probe, daemon=True).start()
    return reached.wait(PROBE_SECONDS)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
