"""The command ``kairos``: one command, few verbs.

Exit statuses: 2, nothing was started; 1, it stopped, and what is safe was named; 130, Ctrl-C,
saved; 143, told to end, saved. No JAX here before a verb that computes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from discovery.config import PRESETS, Config, ConfigError, nearest, preset, to_json
from discovery.requests import (
    DoctorConfig,
    EvaluateConfig,
    EvolveConfig,
    InspectConfig,
    ListConfig,
    QuickstartConfig,
    ReportConfig,
    ReproduceConfig,
    TrainConfig,
    TuneConfig,
    seeds,
)
from discovery.screen import say

Request = TypeVar("Request")

_EXTRAS = {
    "gymnax": "gym",
    "brax": "brax",
    "mujoco": "brax",
    "pyarrow": "parquet",
    "tensorboardX": "tensorboard",
    "wandb": "wandb",
}
"""Optional module -> the extra that brings it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
      argv: its arguments, by default the process's.

    Returns:
      The exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _dispatch(arguments)
    except SystemExit as error:  # the parser: 0 after help, 2 after a mistake
        return error.code if isinstance(error.code, int) else 2
    except KeyboardInterrupt:
        print("kairos: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone: not even the interpreter may write to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        return _report(error, debug)


def _report(error: Exception, debug: bool) -> int:
    """Say in one line what went wrong; the exit status of it."""
    text, status = _explained(error)
    if debug:
        traceback.print_exception(error)
    elif status is None:
        try:
            path = Path(tempfile.gettempdir()) / f"kairos-{os.getpid()}.txt"
            path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
            text += f"; the whole of it is in {path}"
        except OSError:
            text += "; --debug prints the whole of it"
    print(f"kairos: {text}", file=sys.stderr)
    return 1 if status is None else status


def _explained(error: Exception) -> tuple[str, int | None]:
    """The line for an error and its exit status, ``None`` for one that nobody expected."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return str(error), status
    from discovery.runs.errors import REFUSALS

    if isinstance(error, REFUSALS):
        return str(error), 2
    if isinstance(error, ModuleNotFoundError):
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra:
            return f"{error.name} is not installed: pip install 'kairos-rl[{extra}]'", 2
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"stopped: {error.strerror}{where}", 1
    first = str(error).strip().splitlines()
    return f"stopped by {type(error).__name__}: {first[0] if first else ''}", None


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        from discovery.devices import versions

        print(f"kairos {versions().get('kairos-rl', '(not installed)')}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        raise ConfigError(nearest(verb, VERBS, "verb"))
    return VERBS[verb][1](rest)


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {text}" for name, (text, _) in VERBS.items()]
    return "\n".join(
        [
            "usage: kairos VERB ...",
            "",
            "Evolves reinforcement-learning objectives that know their horizon.",
            "",
            *lines,
            "",
            "kairos VERB --help tells the flags of a verb; --debug prints whole tracebacks.",
        ]
    )


def _parse(kind: type[Request], verb: str, arguments: list[str], default: Any = None) -> Request:
    """The dataclass that some arguments describe."""
    import tyro

    # With a default nothing is required, so nothing would be positional.
    given = {} if default is None else {"default": default}
    return tyro.cli(
        kind,
        args=arguments,
        prog=f"kairos {verb}",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.PositionalRequiredArgs),
        **given,
    )


def _flag(arguments: list[str], name: str) -> str | None:
    """The value of a flag, looked up before the parser knows its defaults; the last one counts."""
    found = None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=False):
        if argument == name:
            found = following
        elif argument.startswith(f"{name}="):
            found = argument.partition("=")[2]
    return found


# --- verbs that answer in a moment ------------------------------------------------------------


def _list(arguments: list[str]) -> int:
    from discovery.evaluation import papers
    from envs.registry import REGISTRY
    from learned_objectives.library import RULES, shipped

    request = _parse(ListConfig, "list", arguments)
    if request.preset:
        print(to_json(preset(request.preset)), end="")
        return 0
    found = {
        "presets": {name: text for name, (text, _) in PRESETS.items()},
        "objectives": {name: text for name, (text, _) in RULES.items()} | shipped(),
        "environments": {entry.name: entry.line for entry in REGISTRY},
        "figures": {entry.name: entry.line for entry in papers.REGISTRY},
    }
    if request.json:
        print(json.dumps(found, indent=2))
        return 0
    width = max(len(name) for names in found.values() for name in names)
    for title, names in found.items():
        print(f"{title}")
        for name, text in names.items():
            print(f"  {name:<{width}}  {text}")
        print()
    print("Your own: --env file.py:make, --objective file.py:make, --preset file.json")
    return 0


def _page(arguments: list[str]) -> int:
    request = _parse(ReportConfig, "report", arguments)
    from discovery.report.page import report

    report(request, report=say)
    return 0


# --- verbs that compute -----------------------------------------------------------------------


def _evolve(arguments: list[str]) -> int:
    request = _parse_evolve(arguments)
    from discovery.devices import parse_hosts
    from discovery.runs import folders

    if request.resume:
        if request.seeds:
            raise ConfigError("--seeds begins new runs; --resume goes on with one")
        planned: list[tuple[Config, str]] = [(request.config, request.out)]
    else:
        planned = _planned(request)
    if parse_hosts(request.hosts) == "alone":
        if not request.resume:
            for config, out in planned:
                folders.check_local(out)
                folders.check_ready(config, Path(out), request.overwrite)
        return _evolve_all(request, planned)
    if len(planned) > 1:
        raise ConfigError("several processes run one search: give --seed, not --seeds")
    from discovery.runs.supervisor import supervised

    where = Path(request.resume or planned[0][1])
    return supervised(lambda: _evolve_all(request, planned), lambda: folders.last_words(where))


def _evolve_all(request: EvolveConfig, planned: list[tuple[Config, str]]) -> int:
    """Run the planned searches one after another."""
    from discovery.runs.run import evolve

    began = time.monotonic()
    for config, out in planned:
        minutes = request.max_minutes
        if minutes is not None and len(planned) > 1:
            minutes = max(minutes - (time.monotonic() - began) / 60, 1e-3)
        run = evolve(
            config,
            out or None,
            resume=request.resume or None,
            from_generation=request.from_generation,
            max_minutes=minutes,
            overwrite=request.overwrite,
            quiet=request.quiet,
            devices=request.devices,
            hosts=request.hosts,
            like=request.like or None,
            keep_nonfinite=request.keep_nonfinite,
            debug_nans=request.debug_nans,
            cache=True,
            tensorboard=request.tensorboard,
            wandb=request.wandb,
        )
        if run.stopped:
            left = planned[[place for _, place in planned].index(out) + 1 :]
            if left and not request.quiet:
                say(f"not begun: seeds {', '.join(str(config.seed) for config, _ in left)}")
            return {"minutes": 0, "interrupt": 130, "terminate": 143}[run.stopped]
    return 0


def _parse_evolve(arguments: list[str]) -> EvolveConfig:
    """The request, with the defaults of a preset or of the run that is gone on with."""
    resume, name = _flag(arguments, "--resume"), _flag(arguments, "--preset")
    like = _flag(arguments, "--like")
    if not arguments:
        raise ConfigError(f"give --preset ({', '.join(PRESETS)}), or your own sizes, or --resume")
    base = Config()
    for flag, folder in (("--resume", resume), ("--like", like)):
        if folder == "":  # a variable of the shell's that is not set
            raise ConfigError(f"{flag} needs a run folder")
    if like is not None and (resume, name) != (None, None):
        raise ConfigError("--like takes all that a run records: leave out --resume and --preset")
    if like is not None:
        from discovery.runs.folders import load_config

        base = load_config(Path(like))
    elif resume is not None:
        from discovery.runs.folders import load_config

        base = load_config(Path(resume))
    elif name is not None:
        base = preset(name)
    request = _parse(EvolveConfig, "evolve", arguments, EvolveConfig(config=base))
    if request.from_generation is not None and not resume:
        raise ConfigError("--from-generation goes with --resume")
    if request.seeds and _flag(arguments, "--seed") is not None:
        raise ConfigError("give --seed or --seeds, not both")
    if not request.objective:
        return request
    rule = replace(request.config.objective, rule=request.objective)
    return replace(request, config=replace(request.config, objective=rule))


def _tune(arguments: list[str]) -> int:
    if not arguments:
        raise ConfigError(
            "give --preset and --rule, such as --preset ta-lpg-cpu --rule a2c-constant"
        )
    name = _flag(arguments, "--preset")
    base = Config() if name is None else preset(name)
    request = _parse(TuneConfig, "tune", arguments, TuneConfig(config=base))
    from discovery import devices

    devices.refuse_several("tune")
    devices.start(request.devices, cache=True)
    from discovery.evaluation.tuning import tune

    tune(request, report=say)
    return 0


def _planned(request: EvolveConfig) -> list[tuple[Config, str]]:
    """A configuration and a run folder for every seed."""
    from discovery.runs.folders import default

    if not request.seeds:
        again = f"{request.like.rstrip('/')}-again" if request.like else ""
        return [(request.config, request.out or again or str(default(request.config)))]
    configs = [replace(request.config, seed=seed) for seed in seeds(request.seeds)]
    return [(c, f"{request.out}-{c.seed}" if request.out else str(default(c))) for c in configs]


def _computing(kind: type[Any], verb: str, module: str) -> Callable[[list[str]], int]:
    """A verb whose function takes its request and somewhere to report progress."""

    def run(arguments: list[str]) -> int:
        request = _parse(kind, verb, arguments)
        if getattr(request, "objectives", None) == ():
            raise ConfigError(f"kairos {verb} needs at least one objective (kairos list)")
        import importlib

        from discovery import devices

        devices.refuse_several(verb)
        devices.start(request.devices, cache=True)
        function = getattr(importlib.import_module(module), verb)
        function(request, report=say)
        return 0

    return run


def _reproduce(arguments: list[str]) -> int:
    request = _parse(ReproduceConfig, "reproduce", arguments)
    from discovery import devices
    from discovery.evaluation.papers import reproduce

    devices.refuse_several("reproduce")
    reproduce(request, report=say)
    return 0


def _doctor(arguments: list[str]) -> int:
    request = _parse(DoctorConfig, "doctor", arguments)
    config = preset(request.preset) if request.preset else None
    from discovery.doctor import examine

    examine(config, request.devices, say)
    return 0


VERBS: dict[str, tuple[str, Callable[[list[str]], int]]] = {
    "list": ("objectives, environments, presets, figures", _list),
    "evolve": ("search for an objective, or go on with a search", _evolve),
    "tune": ("tune a hand-written rule, as a rival of learned ones", _tune),
    "evaluate": (
        "score objectives at several horizons: a tidy table",
        _computing(EvaluateConfig, "evaluate", "discovery.evaluation.horizons"),
    ),
    "train": (
        "one agent, one life, with a curve",
        _computing(TrainConfig, "train", "discovery.evaluation.training"),
    ),
    "inspect": (
        "what an objective does over a life: pictures",
        _computing(InspectConfig, "inspect", "discovery.evaluation.inspection"),
    ),
    "reproduce": ("published claims: their searches, their tables, their pictures", _reproduce),
    "report": ("one page that tells all of a run, to be sent to anybody", _page),
    "doctor": ("devices, versions, memory, which `envs`", _doctor),
    "quickstart": (
        "the main job on a laptop, a few minutes",
        _computing(QuickstartConfig, "quickstart", "discovery.quickstart"),
    ),
}
"""Verb -> (one line, function of its arguments)."""


if __name__ == "__main__":
    sys.exit(main())
