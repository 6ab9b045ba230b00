"""Brings the engines of an earlier Stoker together with what the configuration wants now."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import attrs

from stoker.core.reload import needs_restart
from stoker.errors import StokerError
from stoker.model import EngineRun, EngineSpec, KeptEngine, Origin
from stoker.supervise.supervisor import Supervisor

log = logging.getLogger("stoker.app")


@attrs.define(eq=False)
class Returning:
    """``wanted`` is what the configuration names, by id; ``kept`` is the list that was left, and ``living`` runs."""

    supervisor: Supervisor
    wanted: Mapping[str, EngineSpec]
    kept: Sequence[KeptEngine]
    living: Sequence[EngineRun]

    def take_back(self) -> None:
        """Go on with what runs, and then start, stop and change what is wanted otherwise.

        An engine that can't be taken back, because its runtime or its name is another's now, is left alone and named.
        """
        runs = {run.engine_id: run for run in self.living}
        running = {each.engine_id for each in self.kept if self._adopt(each, runs.get(each.engine_id))}
        others = [each for each in self.kept if each.engine_id not in self.wanted]
        for each in others:  # first, since a name of theirs may be another's now
            if each.engine_id in running:
                self._stop_unwanted(each)
        before = {each.engine_id: each for each in self.kept}
        for engine_id, spec in self.wanted.items():
            if engine_id in running:
                self._bring_up_to_date(before[engine_id], spec)
            elif engine_id in before and before[engine_id].configured and not before[engine_id].wanted:
                self.supervisor.keep_stopped(engine_id, spec, before[engine_id].origin)
            else:
                self.supervisor.start(spec, engine_id)
        for each in others:
            if each.engine_id not in running and not each.configured:
                self._start_again(each)

    def _adopt(self, each: KeptEngine, run: EngineRun | None) -> bool:
        if run is None:
            return False
        try:
            self.supervisor.adopt(each.spec, run)
        except StokerError as error:
            what = "engine %r of an earlier run can't be taken back, and its process %s is left alone: %s"
            log.error(what, each.engine_id, run.pid, error)  # noqa: TRY400 - it says all there is to say
            return False
        log.info("%s runs on (pid %s)", each.engine_id, run.pid, extra={"engine": each.engine_id})
        return True

    def _bring_up_to_date(self, each: KeptEngine, spec: EngineSpec) -> None:
        if needs_restart(each.spec, spec):
            self.supervisor.restart(each.engine_id, spec=spec)
        elif each.spec != spec:
            self.supervisor.update(each.engine_id, spec)
        if not each.wanted:
            self.supervisor.stop(each.engine_id)

    def _stop_unwanted(self, each: KeptEngine) -> None:
        """One that was taken out of the configuration, was being stopped, or has a name that is another's now."""
        names = {name for spec in self.wanted.values() if spec.model != each.spec.model for name in spec.all_names}
        if taken := names.intersection(each.spec.all_names):
            log.warning("%s is stopped: the configuration has %s for another model", each.engine_id, ", ".join(taken))
        if each.configured or taken:
            self.supervisor.stop(each.engine_id, forget=True)
        elif not each.wanted:
            self.supervisor.stop(each.engine_id)

    def _start_again(self, each: KeptEngine) -> None:
        """One that somebody had started besides the configuration."""
        try:
            if not each.wanted:
                self.supervisor.keep_stopped(each.engine_id, each.spec, each.origin)
            elif each.origin is Origin.REGISTERED:
                self.supervisor.register(each.spec, each.engine_id)
            else:
                self.supervisor.start(each.spec, each.engine_id)
        except StokerError as error:
            log.error("engine %r of an earlier run is not started again: %s", each.engine_id, error)  # noqa: TRY400
