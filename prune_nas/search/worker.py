"""A worker process of a search: `python -m prune_nas.search.worker`, started by its crew, never by hand.

The first line that it reads is the briefing, every further one a training; each epoch, result or error is a line of
its answers. When its orders end, whatever the reason, it ends at once: every epoch so far is in a checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict
from queue import SimpleQueue
from typing import Any

import torch

from prune_nas.config import Config
from prune_nas.errors import PruneNasError, UsageError
from prune_nas.search.setup import load_data, on_device, trace_model
from prune_nas.search.work import Training, Workplace
from prune_nas.training.loop import Setting
from prune_nas.training.precision import Precision

Answer = Callable[[dict[str, Any]], None]


def workplace(briefing: dict[str, Any]) -> Workplace:
    """The workplace that a briefing describes.

    Raises:
        UsageError: the data set changed since the search began.
    """
    torch.set_num_threads(briefing["threads"])
    config = Config(**briefing["config"])
    data = load_data(config)
    if data.fingerprint != briefing["fingerprint"]:
        raise UsageError("the data set changed while the search was running. Restore it and repeat the command")
    device = torch.device(briefing["device"])
    setting = Setting(
        on_device(data, device), device, Precision(briefing["precision"]), briefing.get("channels_last", True)
    )
    return Workplace(config, trace_model(config, data.input_shape, len(data.classes)), setting)


def serve(orders: SimpleQueue[str], answer: Answer) -> None:
    """Do the trainings of `orders` for ever; whatever goes wrong is answered, and ends it."""
    try:
        place = workplace(json.loads(orders.get()))
        while True:
            training = Training.from_dict(json.loads(orders.get()))
            result = place.perform(training, lambda epoch: answer({"kind": "epoch", "epoch": asdict(epoch)}))
            answer({"kind": "result", "result": asdict(result)})
    except BrokenPipeError:  # the parent is gone
        return
    except OSError as error:
        answer(_error(error.strerror or str(error), errno=error.errno, file=error.filename and str(error.filename)))
    except PruneNasError as error:
        answer(_error(str(error), exit_code=error.exit_code))
    except Exception:
        answer(_error(traceback.format_exc()))


def _error(message: str, *, errno: int | None = None, file: str | None = None, exit_code: int | None = None) -> Any:
    return {"kind": "error", "message": message, "errno": errno, "file": file, "exit_code": exit_code}


def _read(orders: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        orders.put(line)
    os._exit(0)


def main() -> None:
    """Serve the parent process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a user's network prints must not mix with the answers

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    orders: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(orders,), daemon=True).start()
    serve(orders, answer)


if __name__ == "__main__":
    main()
