"""Damages each file of a small finished run in several ways, and gives commands bad input; tables what happened.

    python -m tests.benchmarks.faults [--out FILE.md] [--files finals.csv,...]

A line is right if the commands end with 0 and what was found is as before, or end with a message that names the file or
the input. A line is wrong if a traceback is printed, or if what was found changed without a word.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import optuna
from PIL import Image

from prune_nas.cli import run as command
from prune_nas.cli import searching
from prune_nas.design.files import write_text
from prune_nas.design.records import Final, TrialRow, read_table
from tests.search.tiny import arguments

BIG = "9" * 400
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda content: content[: len(content) // 2],
    "last line torn": lambda content: content[:-9],
    "emptied": lambda content: b"",
    "random bytes": lambda content: bytes((i * 73 + 41) % 256 for i in range(2000)),
    "nested 100,000 deep": lambda content: b"[" * 100_000,
    "of schema 99": lambda content: content.replace(b'"schema": 1', b'"schema": 99'),
    "numbers of 400 digits": lambda content: content.replace(b"1", BIG.encode()),
    "NaN for numbers": lambda content: content.replace(b"0.", b"NaN").replace(b": 1", b": NaN"),
    "HTML for words": lambda content: content.replace(b"conv", b"<script>alert(1)</script>"),
    "paths for words": lambda content: content.replace(b"conv", b"../../../etc/"),
}


def found(run: Path) -> object:
    """What the run found, but for its seconds."""
    trials = [(r.number, r.state, r.value, r.widths) for r in read_table(run / "trials.csv", TrialRow)]
    return trials, [(r.arm, r.candidate, r.seed, r.test_accuracy) for r in read_table(run / "finals.csv", Final)]


def said(*words: str) -> tuple[int, str]:
    """The exit code and stderr of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command(words)
    return code, err.getvalue()


def verdict(code: int, err: str, run: Path, before: object) -> str:
    """What happened, in words; WRONG first where it must not."""
    if "This is a fault in prune-nas" in err or "Traceback" in err:
        return "WRONG: traceback: " + err.strip().splitlines()[-2][:150]
    if code:
        last = [line for line in err.strip().splitlines() if line.startswith("prune-nas:")]
        return f"exit {code}: " + (last[-1] if last else err.strip().splitlines()[-1]).replace(str(run), "RUN")[:220]
    try:
        same = found(run) == before
    except Exception as error:
        return f"WRONG: ends with 0 and leaves {error}"
    return "goes on; the same was found" if same else "WRONG: goes on, and another thing was found"


def rows(run: Path, space: Path, only: Sequence[str] = ()) -> Iterator[tuple[str, ...]]:
    """File, damage, and what `search`, `status` and `report` did about it."""
    before = found(run)
    names = sorted(
        str(p.relative_to(run)) for p in run.rglob("*") if p.is_file() and p.suffix not in (".svg", ".png", ".lock")
    )
    for name in names:
        if only and name not in only:
            continue
        done = set()
        for damage, change in DAMAGES.items():
            content = (run / name).read_bytes()
            changed = change(content)
            if name.startswith(".") or changed == content or changed in done:
                continue
            done.add(changed)
            results = []
            for words in (
                arguments(space / "run", **FEW),
                ["status", str(space / "run")],
                ["report", str(space / "run")],
            ):
                shutil.rmtree(space / "run", ignore_errors=True)
                shutil.copytree(run, space / "run")
                (space / "run" / name).write_bytes(changed)
                results.append(verdict(*said(*words), space / "run", before))
            yield name, damage, *results


def refused(words: Sequence[str], folder: Path) -> str:
    """What a command with bad input did."""
    code, err = said(*words)
    if "This is a fault in prune-nas" in err or "Traceback" in err:
        return "WRONG: traceback: " + err.strip().splitlines()[-2][:150]
    if TELLTALE in err:
        return "WRONG: a password in its message"
    last = [line for line in err.strip().splitlines() if line.startswith("prune-nas:")]
    lines = err.strip().splitlines()
    message = " ".join(" ".join(lines[lines.index(last[-1]) :] if last else lines or ["no word"]).split())
    return f"exit {code}: {message.replace(str(folder), 'DIR')[:260]}"


def inputs(folder: Path) -> Iterator[tuple[str, str]]:
    """Bad input in words, and what happened."""
    made = Made(folder)
    small = arguments(folder / "new", **FEW)

    def searched(**changes: object) -> list[str]:
        return arguments(folder / "new", **{**FEW, **changes})

    transfer = ["transfer", "-m", "resnet20", "-d", "digits", "-b", "params=0.3"]
    asked: list[tuple[str, list[str]]] = [
        ("a network that does not exist", searched(model="vgg61")),
        ("a data set that does not exist", searched(dataset="cifar11")),
        ("a hub's data set, without a network", searched(dataset="hf:no/such")),
        *((f"--budget {text}", searched(budget=text)) for text in BUDGETS),
        *((f"--{name} {value}", searched(**{name: value})) for name, value in NUMBERS),
        ("--storage of an unknown kind", searched(storage="carrier-pigeon://x")),
        ("--storage with two workers on SQLite", searched(storage=f"sqlite:///{folder}/x.db", workers=2)),
        ("--storage where no server listens", searched(storage=f"postgresql://u:{TELLTALE}@127.0.0.1:1/x")),
        ("--run of a file", [*small[:-1], str(made.file("plain", "words"))]),
        ("--run below a file", [*small[:-1], str(made.file("plain2", "words") / "run")]),
        ("--config that is not there", [*small, "--config", str(folder / "none.toml")]),
        ("--config of random bytes", [*small, "--config", str(made.file("bytes.toml", RANDOM))]),
        ("--config with an unknown setting", [*small, "--config", str(made.file("c.toml", "modl = 1"))]),
        ("--space of an unknown slot", [*small, "--space", str(made.file("s.toml", "[slots.x]\nfloor=2"))]),
        ("a model file that exits", searched(model=f"{made.file('evil.py', 'raise SystemExit(9)')}:net")),
        *((f"a rule file {what}", [transfer[0], str(made.file(f"rule{n}.json", text)), *transfer[1:]])
          for n, (what, text) in enumerate(RULES.items())),
        *((f"widths as CSV {what}", [transfer[0], str(made.file(f"w{n}.csv", text)), *transfer[1:], "--source-model",
                                     "vgg11"]) for n, (what, text) in enumerate(WIDTHS.items())),
        *((f"a spec {what}", ["train", str(made.file(f"s{n}.json", text)), "-d", "digits", "--out", str(folder / "o")])
          for n, (what, text) in enumerate(SPECS.items())),
        *((f"class folders: {what}", searched(dataset=f"folder:{make(made)}")) for what, make in FOLDERS.items()),
        ("a worker for a study that does not exist", ["worker", "--storage", f"sqlite:///{folder}/y.db", "--study",
                                                      "../../etc", "--wait", "1"]),
        ("plot of a run that is not there", ["plot", str(folder / "none")]),
        ("report of a folder that is no run", ["report", str(folder)]),
    ]  # fmt: skip
    for what, words in asked:
        shutil.rmtree(folder / "new", ignore_errors=True)
        yield what, refused(words, folder)


class Made:
    """Files of bad input."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def classes(self, name: str, *classes: str, image: bytes | None = None) -> Path:
        """A data set of 20 images a class, one of them replaced by `image`."""
        chance = random.Random(0)
        for split in ("train", "test"):
            for label in classes:
                for number in range(20):
                    file = io.BytesIO()
                    Image.new("RGB", (16, 16), tuple(chance.choices(range(256), k=3))).save(file, "PNG")
                    self.file(f"{name}/{split}/{label}/{number:02}.png", file.getvalue())
        if image is not None:
            self.file(f"{name}/train/{classes[0]}/05.png", image)
        return self.folder / name


def bomb() -> bytes:
    """A PNG whose header claims 60,000 x 60,000 pixels."""
    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, "PNG")
    content = bytearray(file.getvalue())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


TELLTALE = "tops3cret"
RANDOM = bytes((i * 73 + 41) % 256 for i in range(2000))
BUDGETS = ("macs", "macs=", "macs=0", "macs=-1", "macs=nan", "macs=1e400", "macs=inf", "macs=0.4,macs=0.3", "joules=1",
           "macs=0.0001", "macs=0.4;rm -rf", "latency=0.000001")  # fmt: skip
NUMBERS = (("seed", -1), ("seed", 2**40), ("trials", -1), ("epochs", 0), ("epochs", "1e9"), ("batch", 0),
           ("lr", "nan"), ("lr", "inf"), ("lr", "1e30"), ("base-width", 0), ("base-width", "1e9"), ("image-size", 4),
           ("train-size", 10**9), ("train-size", 1), ("val-size", 0), ("workers", -1), ("workers", "many"),
           ("devices", "cuda:7"), ("device", "abacus"), ("threads", 0), ("precision", "int1"), ("penalty", "l7"),
           ("sampler", "oracle"), ("preset", "supercomputer"), ("recipe", "secret"), ("arms", "left"),
           ("timeout", "nan"), ("supernet-width", 0.5))  # fmt: skip
_RULE = '{"schema": 1, "kind": "stage-mean", "parameters": {"ratios": %s}, "explanation": "x", "fit": {}}'
RULES = {
    "of random bytes": RANDOM,
    "nested 100,000 deep": "[" * 100_000,
    "with NaN": _RULE % "[NaN, 0.5]",
    "with a number of 400 digits": _RULE % f"[{'9' * 400}]",
    "with a negative ratio": _RULE % "[-0.5, 0.5, 0.5]",
    "without ratios": _RULE % "[]",
    "with words for ratios": _RULE % '["<script>", "x"]',
    "of a kind that does not exist": _RULE.replace("stage-mean", "../../etc/passwd") % "[0.5]",
    "of schema 99": _RULE.replace('"schema": 1', '"schema": 99') % "[0.5]",
    "that is a list of numbers": "[1, 2, 3]",
}
WIDTHS = {
    "without a header": "1,2,3\n",
    "with a formula for a slot": 'slot,width\n"=HYPERLINK(""http://x"")",5\n',
    "with a width of 10^30": "slot,width\nconv1_1," + "1" * 30 + "\n",
    "with NaN": "slot,width\nconv1_1,nan\n",
    "of random bytes": RANDOM,
}
SPECS = {
    "of random bytes": RANDOM,
    "that is empty": "{}",
    "of a model that is a file": '{"schema": 1, "model": "/tmp/x.py:f", "widths": {}}',
    "of widths of 10^15": '{"schema": 1, "model": "vgg11", "base_width": 1, "input_shape": [3, 32, 32], "classes": 10, '
    '"settings": {}, "widths": {"conv1_1": 1000000000000000}}',
    "of input 10^9 x 10^9": '{"schema": 1, "model": "vgg11", "base_width": 1, "input_shape": [3, 1000000000, '
    '1000000000], "classes": 10, "settings": {}, "widths": {}}',
    "of NaN classes": '{"schema": 1, "model": "vgg11", "classes": NaN}',
}


def looped(made: Made) -> Path:
    """A link to the set in the set."""
    root = made.classes("loop", "a", "b")
    (root / "train" / "a" / "again").symlink_to(root / "train")
    return root


FOLDERS: dict[str, Callable[[Made], Path]] = {
    "HTML, a formula and an emoji for names": lambda made: made.classes(
        "names", "<script>alert(1)<", "=1+1", "\N{PILE OF POO}"
    ),
    "an image that claims 60,000 x 60,000 pixels": lambda made: made.classes("bomb", "a", "b", image=bomb()),
    "an image of random bytes": lambda made: made.classes("noise", "a", "b", image=RANDOM),
    "an empty image": lambda made: made.classes("empty", "a", "b", image=b""),
    "one class": lambda made: made.classes("one", "a"),
    "a folder that is not there": lambda made: made.folder / "nowhere",
    "a folder in a folder in itself": looped,
}


FEW = {"arms": "found,uniform,inherited", "seeds": 1, "trials": 3}


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--files", default="", help="of the run directory, with commas, and no bad input [default: all]"
    )
    given = parser.parse_args()
    out, only = given.out, [name for name in given.files.split(",") if name]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "made"
        code, err = said(*arguments(run, **FEW))
        assert code == 0, err
        searching.report_run = lambda *paths, **flags: None  # `report` is a column of its own
        lines = ["| file | damage | `search` again | `status` | `report` |", "|---|---|---|---|---|"]
        for row in rows(run, Path(folder), only):
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
        lines += ["", "| input | what happened |", "|---|---|"]
        for what, happened in inputs(Path(folder) / "inputs") if not only else ():
            lines.append(f"| {what} | {happened} |".replace("\n", " "))
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
    if out is not None:
        write_text(out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
