"""h2, configured for our connections."""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings
from hyperframe.frame import DataFrame, Frame

from wherry.rpc.frames import data_head
from wherry.rpc.limits import FIRST_WINDOW, FRAME_SIZE, ConnectionLimits


class Machine(H2Connection):
    """h2 without the four copies that it makes of sent data: frames are put together once, when they are
    written.

    If a later h2 sends without this method, it works as before, with the copies.
    """

    def __init__(self, config: H2Configuration) -> None:
        self._pieces: list[bytes | memoryview] = []
        super().__init__(config)

    def _prepare_for_sending(self, frames: list[Frame]) -> None:
        for frame in frames:
            if isinstance(frame, DataFrame) and "PADDED" not in frame.flags:
                self._pieces.append(data_head(frame.stream_id, len(frame.data), "END_STREAM" in frame.flags))
                self._pieces.append(frame.data)
            else:
                self._pieces.append(frame.serialize())

    def data_to_send(self, amount: int | None = None) -> bytes:
        data = b"".join([super().data_to_send(), *self._pieces])
        self._pieces.clear()
        return data


def machine(client_side: bool, limits: ConnectionLimits) -> Machine:
    # Our own headers are checked in metadata.py.
    config = H2Configuration(
        client_side=client_side,
        header_encoding=None,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
    )
    made = Machine(config)
    values = {
        SettingCodes.HEADER_TABLE_SIZE: 4096,
        SettingCodes.INITIAL_WINDOW_SIZE: FIRST_WINDOW,
        SettingCodes.MAX_FRAME_SIZE: FRAME_SIZE,
        SettingCodes.MAX_HEADER_LIST_SIZE: limits.headers,
    }
    if client_side:
        values[SettingCodes.ENABLE_PUSH] = 0
    else:
        values[SettingCodes.MAX_CONCURRENT_STREAMS] = limits.streams
    made.local_settings = Settings(client=client_side, initial_values=values)
    made.decoder.max_header_list_size = limits.headers
    made.max_inbound_frame_size = FRAME_SIZE
    return made
