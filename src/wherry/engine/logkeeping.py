"""Which logs are kept and how: the daemon's log keeper told about containers as they come and go."""

from __future__ import annotations

from wherry.engine.settings import Settings
from wherry.logs import options
from wherry.logs.files import LogFiles
from wherry.logs.keeper import Keeper
from wherry.state.containers import ContainerRow


class LogKeeping:
    def __init__(self, *, settings: Settings, keeper: Keeper) -> None:
        self._settings = settings
        self.keeper = keeper

    def prepare(self, row: ContainerRow) -> None:
        """Before conmon opens the log. Blocks."""
        if options.is_kept(row.record.host_config.log_config):
            LogFiles(self._settings.log_path(row.id)).settle()

    def running(self, row: ContainerRow) -> None:
        """It was started, or adopted."""
        config = row.record.host_config.log_config
        if options.is_kept(config):
            control = self._settings.task_directory(row.id) / "ctl"
            self.keeper.run(row.id, self._settings.log_path(row.id), control, options.keep(config))

    def ended(self, row: ContainerRow) -> None:
        self.keeper.end(row.id)

    async def close(self) -> None:
        await self.keeper.close()
