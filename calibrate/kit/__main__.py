"""``python -m calibrate.kit``: collect a kit here, unpack and use it on a GPU host."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from calibrate.kit.parts import LIMIT_BYTES, MIB
from simserve.errors import InputError

_INPUT_IS_WRONG = 2
_READER_GONE = 128 + 13  # as a shell says it of a program that ended by SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status. A user's mistake costs one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own = given[: given.index("--")] if "--" in given else given
    options = _parser().parse_args(own)
    options.extra = given[len(own) + 1 :]  # passed on to calibrate
    try:
        status: int = options.run(options)
    except InputError as error:
        print(f"calibrate.kit: {error}", file=sys.stderr)  # noqa: T201
        return _INPUT_IS_WRONG
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the last flush
        return _READER_GONE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="calibrate.kit", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    collect = commands.add_parser("collect", help="fetch everything a GPU host lacks")
    collect.add_argument("--out", type=Path, default=Path(".kit"), metavar="DIR")
    collect.add_argument(
        "--modules", type=Path, metavar="FILE", help="prebuilt FlashInfer modules (see modules)"
    )
    collect.add_argument(
        "--limit-mib",
        type=float,
        default=LIMIT_BYTES / MIB,
        metavar="N",
        help="what repository and kit may weigh together (default %(default)g)",
    )
    collect.set_defaults(run=_collect)

    modules = commands.add_parser("modules", help="compile FlashInfer's modules for the kit")
    modules.add_argument("--out", type=Path, required=True, metavar="FILE.tar.xz")
    modules.add_argument("--cuda-home", type=Path, default=Path("/usr/local/cuda"), metavar="DIR")
    modules.set_defaults(run=_modules)

    unpack = commands.add_parser("unpack", help="verify and unpack a kit on the host")
    unpack.add_argument("--kit", type=Path, default=Path(".kit"), metavar="DIR")
    unpack.add_argument("--to", type=Path, required=True, metavar="DIR")
    unpack.set_defaults(run=_unpack)

    host = commands.add_parser(
        "host", help="unpack and work within a limit; options of calibrate after --"
    )
    _add_host_options(host)
    return parser


def _add_host_options(host: argparse.ArgumentParser) -> None:
    from calibrate.kit.host import LIMIT_S, TASKS

    host.add_argument("task", choices=TASKS)
    host.add_argument("--out", type=Path, required=True, metavar="DIR", help="for log and results")
    host.add_argument("--kit", type=Path, default=Path(".kit"), metavar="DIR")
    host.add_argument("--no-kit", action="store_true", help="use what is installed")
    host.add_argument("--limit-s", type=float, default=LIMIT_S, metavar="S")
    host.add_argument(
        "--resume", type=Path, metavar="FILE", help="results of an earlier call to go on from"
    )
    host.set_defaults(run=_host)


def _collect(options: argparse.Namespace) -> int:
    from calibrate.kit.collect import collect

    limit_bytes = int(options.limit_mib * MIB)
    collect(options.out, modules=options.modules, limit_bytes=limit_bytes, say=_say)
    return 0


def _modules(options: argparse.Namespace) -> int:
    from calibrate.kit.flashinfer_modules import build

    build(options.out, options.cuda_home, _say)
    return 0


def _unpack(options: argparse.Namespace) -> int:
    from calibrate.kit.unpack import environment, unpack

    unpack(options.kit, options.to.resolve(), _say)
    for name, value in environment(options.to.resolve()).items():
        _say(f"export {name}={value}")
    return 0


def _host(options: argparse.Namespace) -> int:
    from calibrate.kit.host import work

    return work(
        options.task,
        options.extra,
        out=options.out,
        kit=None if options.no_kit else options.kit,
        resume=options.resume,
        limit_s=options.limit_s,
        say=_say,
    )


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
